"""Learns from images that two encoders saw where the large one has to look, without ground truth.

In: the background's images as mentions with their captions' candidates, each with `clip_z` and
`clip_z_other` by both encoders. Out: a `SecondLook`.

    1. The joint score's weights by the small encoder alone, and by both (joint_weights.py).
    2. The threshold of each at the asked share of wrong labels: the lowest evidence t with
       pi P(mismatched > t) / P(own > t) + mean of p(another | any) <= rate,
       which is the estimate of select/calibrate.py on a sample that fits into memory.
    3. p(kept | E): a logistic regression of what both keep on the small one's evidence.
    4. The expected change of a label above which lie as many images as the large one may see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from openmofi.label.joint_weights import fit_both, fit_weights
from openmofi.label.score import expit
from openmofi.label.second_look import SecondLook

_FEWEST_KEPT = 0.01
"""Share of the mentions that a threshold has to keep, for its rate to be an estimate."""
_RIDGE = 0.1
"""Pull of the regression towards sigmoid(E), which keeps it finite where all or none are kept."""


@dataclass(frozen=True)
class SeenTwice:
    """Mentions whose images two encoders saw."""

    image: Int[np.ndarray, " m"]
    """Number of each one's image."""
    begins: Int[np.ndarray, " m"]
    """First candidate."""
    text_score: Float[np.ndarray, " c"]
    clip_z: Float[np.ndarray, "c e"]
    """One column per encoder: the small one, the large one."""
    clip_z_other: Float[np.ndarray, "c k e"]


def fit_second_look(
    sample: SeenTwice, *, rate: float, share: float
) -> tuple[SecondLook, dict[str, float]]:
    """Returns (when the large encoder looks, what is expected of that).

    Args:
        sample: images that were drawn without looking at them.
        rate: share of wrong labels that `select` will be asked for.
        share: of the images with candidates, how many the large encoder looks at.
    """
    text, begins = sample.text_score, sample.begins
    own, others = sample.clip_z.astype(np.float64), sample.clip_z_other.astype(np.float64)
    small = fit_weights(text, own[:, 0], others[..., 0], begins, image=sample.image)
    (by_small, by_large), nil = fit_both(text, own, others, begins, small)
    found = SecondLook(small.weights, by_small, by_large, nil, 0.0, 0.0, 1.0, 0.0)
    if small.unshown_share is None:  # nothing to learn from: the large encoder looks at everything
        return found, {"mentions": 0, "share": 1.0, "changes": 0.0, "changes_left": 0.0}

    def judged(own_z: np.ndarray, other_z: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns each mention's evidence, and the least that is kept."""
        evidence, another = found.evidence(text, own_z, begins)
        wrong = np.stack([found.evidence(text, z, begins)[0] for z in other_z.T], axis=1)
        return evidence, threshold_at(rate, evidence, wrong, another, small.unshown_share)

    evidence, threshold = judged(own[:, 0], others[..., 0])
    both, least = judged(*(found.combined(z[..., 0], z[..., 1]) for z in (own, others)))
    intercept, slope = fit_fate(evidence, both >= least)
    threshold = midway(evidence, threshold)
    found = replace(found, threshold=threshold, intercept=intercept, slope=slope)
    changes = found.changes(text, own[:, 0], begins)
    _, image = np.unique(sample.image, return_inverse=True)
    most = np.zeros(image.max() + 1)
    np.maximum.at(most, image, changes)
    found = replace(found, least_change=midway(most, least_value(most, share)))
    unseen = changes[changes < found.least_change]
    return found, {
        "mentions": small.num_mentions,
        "share": float((most >= found.least_change).mean()),
        "changes": float(changes.mean()),
        "changes_left": float(unseen.sum() / len(changes)),
    }


def threshold_at(
    rate: float,
    evidence: Float[np.ndarray, " m"],
    mismatched: Float[np.ndarray, "m k"],
    another: Float[np.ndarray, " m"],
    unshown_share: float,
) -> float:
    """Returns the least evidence whose estimated share of wrong labels is at most the asked one.

    If there is none, returns that of the lowest rate.

    Args:
        rate: the asked share.
        evidence: of each mention's best candidate.
        mismatched: the same with images of other captions; NaN if there are fewer.
        another: probability that another candidate is shown, given that one is.
        unshown_share: share of the mentions that are not shown.
    """
    order = np.argsort(evidence, kind="stable")
    values, wrong = evidence[order], np.sort(mismatched[~np.isnan(mismatched)])
    kept = len(values) - np.arange(len(values))
    share = (len(wrong) - np.searchsorted(wrong, values, "left")) / max(len(wrong), 1)
    doubt = np.cumsum(another[order][::-1])[::-1] / kept
    rates = np.minimum(unshown_share * share * len(values) / kept + doubt, 1.0)
    rates[kept < _FEWEST_KEPT * len(values)] = 1.0
    return float(values[np.argmax(rates <= rate) if (rates <= rate).any() else np.argmin(rates)])


def fit_fate(
    evidence: Float[np.ndarray, " m"], kept: Bool[np.ndarray, " m"]
) -> tuple[float, float]:
    """Returns a and b of the logistic regression p(kept) = sigmoid(a + b evidence)."""
    from scipy.optimize import minimize

    sign = np.where(kept, 1.0, -1.0)

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (values[0] + values[1] * evidence)
        rest = -sign * expit(-margin)
        pull = _RIDGE * (values - start)
        total = np.logaddexp(0, -margin).sum() + 0.5 * pull @ (values - start)
        return float(total), pull + np.array([rest.sum(), rest @ evidence])

    start = np.array([0.0, 1.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=((None, None), (0.0, None)))
    return float(found.x[0]), float(found.x[1])


def least_value(values: Float[np.ndarray, " n"], share: float) -> float:
    """Returns the lowest of some values that at most a share of them reaches, or their maximum.

    For a share of 1 it is 0, which all changes reach.
    """
    if share >= 1:
        return 0.0
    distinct, counts = np.unique(values, return_counts=True)
    reached = np.cumsum(counts[::-1])[::-1]
    return float(distinct[min(np.searchsorted(-reached, -share * len(values)), len(distinct) - 1)])


def midway(values: Float[np.ndarray, " n"], least: float) -> float:
    """Returns a bound that parts the values as `least` does, and that rounding does not move.

    The values come again when their images do, with other last bits on another machine.
    """
    lower = values[values < least]
    return (least + float(lower.max())) / 2 if len(lower) else least
