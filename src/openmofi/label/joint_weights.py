"""The weights of the joint score, fitted to the user's captions and encoder without ground truth.

In: candidates with the `clip_z` of their own image and those of other captions' images
(`clip_z_other`). With another caption's image, nothing that the caption names is shown, so that
these pairs are examples of NIL; own pairs are a mixture of NIL and of mentions that are shown.
Telling the two apart is learning from positive and unlabelled examples (Elkan and Noto, KDD 2008)
with the roles exchanged. By the joint score, a mention's candidates have the odds
R = sum of exp(logit - NIL) against NIL. If a share pi of the mentions is not shown, then

    density(features | own) / density(features | other) = pi (1 + R)

and the fitted weights and pi are those that best tell own from other pairs by this ratio. With
little data they stay near the shipped ones: a Gaussian prior counts as `_PRIOR` mentions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from openmofi.label.score import LEAST_TEXT, ScoreWeights, load_weights, log_sum

_PRIOR = 10.0
"""Number of mentions that the shipped weights count as, chosen by the likelihood of held-out pairs:
docs/log.md. Each loses half a nat if log text, log clip_z or nil_z moves by 1."""
_SHARE_PRIOR = 0.25
"""Weight of the square of log(pi / (1 - pi)), in nats times 2: an almost flat prior."""
_TEXT, _VISUAL, _NIL, _ODDS = np.log([0.05, 3.0]), np.log([1e-2, 30.0]), (-30.0, 100.0), (-7.0, 7.0)
"""Bounds of log text, log clip_z, nil_z and log(pi / (1 - pi))."""
_EXACT = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
"""Converged to the last digits, so that another order of summation gives the same labels."""


@dataclass(frozen=True)
class Weighing:
    """Weights, and what else the fit yields."""

    weights: ScoreWeights
    unshown_share: float | None
    """Share pi of the mentions that are not shown; None: not estimated."""
    unshown_error: float
    """Standard error of pi under resampling of the images."""
    num_mentions: int
    """Number of mentions that the weights were fitted to; 0: they are the shipped ones."""
    covariance: Float[np.ndarray, "3 3"] | None = field(default=None, compare=False)
    """Of the logarithms of the text's and clip_z's weight and of nil_z; None: they were given."""

    def stored(self) -> dict[str, Any]:
        """Returns it as JSON can hold it, to the last digit."""
        covariance = None if self.covariance is None else self.covariance.tolist()
        return asdict(replace(self, covariance=None)) | {"covariance": covariance}

    @classmethod
    def restored(cls, stored: dict[str, Any]) -> Weighing:
        """Returns what `stored` wrote."""
        covariance = stored["covariance"] and np.array(stored["covariance"])
        weights = ScoreWeights(**stored["weights"])
        return cls(**(stored | {"weights": weights, "covariance": covariance}))


def fit_weights(
    text_score: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    clip_z_other: Float[np.ndarray, "c k"],
    begins: Int[np.ndarray, " m"],
    *,
    image: Int[np.ndarray, " m"] | None = None,
    prior: float = _PRIOR,
) -> Weighing:
    """Returns the weights that best tell own pairs from mismatched ones.

    Mentions without both kinds are left out. The mismatched pairs of a mention together count as
    much as its own pair.

    Args:
        text_score: p(candidate | text).
        clip_z: clip_z of the candidate with its own image; NaN if that was not looked at.
        clip_z_other: clip_z with the images of other captions, which have none of the mention's
            candidates; NaN if there are fewer than k.
        begins: first candidate of each mention.
        image: number of each mention's image, for the error; by default each has its own.
        prior: number of mentions that the shipped weights count as; without mentions to learn
            from, these weights are returned.
    """
    from scipy.optimize import minimize

    pairs, whole = Pairs.of(text_score, clip_z[:, None], clip_z_other[..., None], begins)
    shipped, count = load_weights(), int(whole.sum())
    if not count:
        return Weighing(shipped, None, 0.0, 0)
    start = np.array([np.log(shipped.text), np.log(shipped.clip_z), shipped.nil_z, 0.0])
    pull = np.array([prior, prior, prior, _SHARE_PRIOR])

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        gain, slope = pairs.log_likelihood(values)
        lost = pull * (values - start)
        total = 0.5 * lost @ (values - start) - gain.sum()
        return float(total) / count, (lost - slope.sum(0)) / count

    bounds = (_TEXT, _VISUAL, _NIL, _ODDS)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_EXACT).x
    weights = ScoreWeights(float(np.exp(found[0])), float(np.exp(found[1])), float(found[2]))
    share = float(expit(found[3]))
    slopes = pairs.log_likelihood(found)[1]
    curvature = count * _curvature(lambda values: loss(values)[1], found)
    image = np.arange(count) if image is None else image[whole]
    covariance = _covariance(slopes, curvature, image)
    error = share * (1 - share) * np.sqrt(covariance[3, 3])
    return Weighing(weights, share, float(error), count, covariance[:3, :3])


def fit_both(
    text_score: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, "c e"],
    clip_z_other: Float[np.ndarray, "c k e"],
    begins: Int[np.ndarray, " m"],
    known: Weighing,
) -> tuple[list[float], float]:
    """Returns (the weights of several encoders' clip_z beside each other, nil_z).

    Everything else is that of a fit to one of them: the text's weight, which must not depend on
    how many looked, and the share of what is not shown.

    Args:
        text_score: p(candidate | text).
        clip_z: one column per encoder; NaN in all or none.
        clip_z_other: the same with the images of other captions.
        begins: first candidate of each mention.
        known: what `fit_weights` returned.
    """
    from scipy.optimize import minimize

    pairs, whole = Pairs.of(text_score, clip_z, clip_z_other, begins)
    shipped, encoders, count = load_weights(), clip_z.shape[1], int(whole.sum())
    each = np.log(shipped.clip_z / encoders)
    start = np.array([np.log(known.weights.text), *[each] * encoders, shipped.nil_z, 0.0])
    if not count or known.unshown_share is None:
        return np.exp(start[1:-2]).tolist(), shipped.nil_z
    start[-1] = np.log(known.unshown_share / (1 - known.unshown_share))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        gain, slope = pairs.log_likelihood(values)
        lost = _PRIOR * (values - start)
        total = 0.5 * lost @ (values - start) - gain.sum()
        return float(total) / count, (lost - slope.sum(0)) / count

    fixed = [(value, value) for value in (start[0], start[-1])]
    bounds = (fixed[0], *[_VISUAL] * encoders, _NIL, fixed[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=_EXACT).x
    return np.exp(found[1:-2]).tolist(), float(found[-2])


def _curvature(slope: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Returns the second derivatives as finite differences of the first ones."""
    steps = 1e-4 * np.eye(len(at))
    rows = [(slope(at + step) - slope(at - step)) / 2e-4 for step in steps]
    return (np.array(rows) + np.array(rows).T) / 2


def _covariance(slopes: np.ndarray, curvature: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns the covariance of a fit by White's sandwich (Econometrica 50, 1982).

    Args:
        slopes: [m, p], gradient of each mention's log likelihood.
        curvature: [p, p], second derivatives of the whole loss.
        image: number of each mention's image; mentions of one image count as one.
    """
    _, number = np.unique(image, return_inverse=True)
    of_image = np.stack([np.bincount(number, column) for column in slopes.T])
    inverse = np.linalg.pinv(curvature)
    return inverse @ (of_image @ of_image.T) @ inverse


@dataclass(frozen=True)
class Pairs:
    """The mentions that have both kinds of pairs, as one or several encoders see them."""

    begins: Int[np.ndarray, " m"]
    log_text: Float[np.ndarray, " c"]
    sides: tuple[tuple[float, Float[np.ndarray, "c e"], Float[np.ndarray, " m"]], ...]
    """For own and each of the mismatched pairs: (1 or -1, clip_z, weight per mention)."""

    @staticmethod
    def of(
        text_score: np.ndarray, clip_z: np.ndarray, clip_z_other: np.ndarray, begins: np.ndarray
    ) -> tuple[Pairs, np.ndarray]:
        """Returns (the pairs, which mentions have both kinds).

        Args:
            text_score: [c], p(candidate | text).
            clip_z: [c, e], one column per encoder; NaN in all or none.
            clip_z_other: [c, k, e], the same with other captions' images.
            begins: first candidate of each mention.
        """
        unknown = np.isnan(clip_z[:, 0]) | np.isnan(clip_z_other[..., 0]).all(1)
        whole = ~np.logical_or.reduceat(unknown, begins) if len(begins) else np.zeros(0, bool)
        lengths = np.diff(np.r_[begins, len(clip_z)])
        kept, begins = np.repeat(whole, lengths), np.cumsum(lengths[whole]) - lengths[whole]
        log_text = np.log(np.maximum(text_score[kept], LEAST_TEXT)).astype(np.float64)
        own, others = (z[kept].astype(np.float64) for z in (clip_z, clip_z_other))
        known = ~np.isnan(others[begins, :, 0])
        shares = known / np.maximum(known.sum(1, keepdims=True), 1)
        mismatched = zip(np.nan_to_num(others).swapaxes(0, 1), shares.T, strict=True)
        sides = (1.0, own, np.ones(len(begins))), *((-1.0, z, share) for z, share in mismatched)
        return Pairs(begins, log_text, sides), whole

    def log_likelihood(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the log likelihood of telling own from mismatched pairs, and its gradient.

        Both are per mention: [m] and [m, e + 3].

        Args:
            values: log text, log clip_z of each encoder, nil_z and log(pi / (1 - pi)).
        """
        text, visual = np.exp(values[0]), np.exp(values[1:-2])
        nil_z, log_pi, unshown = values[-2], -np.logaddexp(0, -values[-1]), expit(values[-1])
        lengths = np.diff(np.r_[self.begins, len(self.log_text)])
        gain, slope = np.zeros(len(self.begins)), np.zeros((len(self.begins), len(values)))
        for sign, z, counts in self.sides:
            by_text, by_image = text * self.log_text, visual * (z - nil_z)
            logits = by_text + by_image.sum(1)
            log_odds = log_sum(logits, self.begins)
            log_ratio = sign * (log_pi + np.logaddexp(0, log_odds))
            gain -= counts * np.logaddexp(0, -log_ratio)
            rate = sign * counts * expit(-log_ratio)
            shown = rate * expit(log_odds)
            share = np.exp(logits - np.repeat(log_odds, lengths))
            slope[:, 0] += shown * np.add.reduceat(share * by_text, self.begins)
            for encoder, part in enumerate(by_image.T, start=1):
                slope[:, encoder] += shown * np.add.reduceat(share * part, self.begins)
            slope[:, -2] -= shown * visual.sum()
            slope[:, -1] += rate * (1 - unshown)
        return gain, slope
