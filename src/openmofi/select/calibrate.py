"""The threshold for a wanted share of wrong labels, found without any ground truth.

A chosen candidate is wrong for one of two reasons. First, nothing that the mention may mean is
shown. How such unshown mentions score is measured by giving every mention the image of another
caption and choosing in the same way. With pi the share of unshown among the chosen,

    rate(t) = pi P(mismatched evidence > t) / P(observed evidence > t)

This assumes that wrong candidates match no better than random images, which is false if two
candidates of a mention resemble each other (the flags of Chad and Romania). So, second, another
candidate of the mention may be the one shown: the joint score's own probability of that, averaged
over what is kept, is added. No estimate here covers something that resembles the entity but is not
a candidate.

`interval.py` computes how certain the estimate is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from openmofi.select.interval import Counted, rate_interval

_FEWEST_KEPT = 0.01
_NEAR_BEST = 1.1


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it was derived from."""

    threshold: float
    """Least evidence of a label that is kept."""
    estimated_false_label_rate: float
    low_rate: float
    high_rate: float
    """The share of wrong labels lies between these two with the probability
    `interval.PROBABILITY`."""
    reached: bool
    """Whether the wanted rate was reached; if not, the threshold is the best available."""
    unshown_share: float
    confused_share: float
    """Estimated share of the kept for which another candidate of the mention is shown."""
    num_observed: int
    """Choices with evidence."""

    @property
    def doubt(self) -> str:
        """A sentence if the rate may be more than twice the estimate, else ""."""
        if self.high_rate <= 2 * self.estimated_false_label_rate:
            return ""
        return (
            f"There are too few pairs to tell the rate: of 100 labels that are kept, between "
            f"{100 * self.low_rate:.1f} and {100 * self.high_rate:.1f} may be wrong. More pairs, "
            "or a model that knows these images better, would narrow it."
        )


def calibrate(
    observed: Float[np.ndarray, " n"],
    mismatched: Float[np.ndarray, "n k"],
    *,
    false_label_rate: float,
    confused: Float[np.ndarray, " n"] | None = None,
    unshown_share: float | None = None,
    unshown_error: float = 0.0,
    image: Int[np.ndarray, " n"] | None = None,
) -> Calibration:
    """Returns the lowest threshold whose estimated rate of wrong labels is at most the wanted one.

    If there is none, `reached` is False and the estimated rate is near the lowest possible one. The
    observed are compared with the mismatched of the same mentions; a mention counts once, however
    many mismatched images it has.

    Args:
        observed: evidence for the chosen candidates from their own images; NaN if the image was
            not looked at, which no threshold keeps.
        mismatched: evidence for the candidates chosen with the images of k other captions; NaN if
            there are fewer.
        false_label_rate: wanted share of wrong labels among those kept, in (0, 1).
        confused: probability that another candidate of the mention is shown; the default is 0.
        unshown_share: pi; the default is Storey's estimate (J. R. Stat. Soc. B 64, 2002) at the
            median of the mismatched.
        unshown_error: standard error of a given unshown_share.
        image: number of each choice's image; choices that share one are wrong together. By default
            each has its own.
    """
    order = np.argsort(observed, kind="stable")[: int((~np.isnan(observed)).sum())]
    observed, mismatched = observed[order], mismatched[order]
    count = len(observed)
    if not count:
        return Calibration(0.0, 0.0, 0.0, 0.0, True, 0.0, 0.0, 0)
    doubt = np.zeros(count) if confused is None else confused[order].astype(np.float64)
    known = ~np.isnan(mismatched)
    both = known.sum(1) > 0
    if not both.any():  # a single entity: no image certainly shows something else
        return Calibration(float(observed[0]), 1.0, 0.0, 1.0, False, 1.0, 0.0, count)
    share = known / np.maximum(known.sum(1, keepdims=True), 1)
    own = observed[both]
    if unshown_share is None:
        unshown_share, unshown_error = _storey(own, mismatched[known], share[known])
    kept = count - np.searchsorted(observed, observed, "left")  # at threshold observed[i]
    kept_own = len(own) - np.searchsorted(own, observed, "left")
    false = _weight_above(mismatched[known], share[known], observed)
    confusion = np.r_[np.cumsum(doubt[::-1])[::-1], 0.0][count - kept] / kept
    rate = np.minimum(unshown_share * false / np.maximum(kept_own, 1) + confusion, 1.0)
    rate[kept_own < _FEWEST_KEPT * len(own)] = 1.0  # too few for an estimate
    index = int(np.argmax(rate <= false_label_rate))
    reached = bool(rate[index] <= false_label_rate)
    if not reached:  # not the minimum, which may keep almost nothing for a slightly lower rate
        index = int(np.argmax(rate <= _NEAR_BEST * rate.min()))
    above = observed[index]
    counted = Counted(
        kept=observed >= above,
        both=both,
        mismatched=((mismatched >= above) * share).sum(1),  # NaN is not above
        confused=doubt,
        image=order if image is None else image[order],
        num_mismatched=int(known.sum()),
    )
    low, high = rate_interval(counted, float(unshown_share), unshown_error)
    return Calibration(
        float(above),
        float(rate[index]),
        min(low, float(rate[index])),
        max(high, float(rate[index])),
        reached,
        float(unshown_share),
        float(confusion[index]),
        count,
    )


def _storey(observed: np.ndarray, mismatched: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """Returns twice the share of the observed below the median of the mismatched, and its error."""
    order = np.argsort(mismatched, kind="stable")
    below = np.cumsum(share[order])
    median = mismatched[order][np.searchsorted(below, below[-1] / 2)]
    part = float(np.searchsorted(observed, median, "right")) / len(observed)
    error = 2 * np.sqrt((part * (1 - part) + part / 2) / len(observed))  # the median's included
    return min(1.0, 2 * part), float(error)


def _weight_above(values: np.ndarray, weights: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns for each of `at` the sum of the weights of values at least as large."""
    order = np.argsort(values, kind="stable")
    total = np.r_[np.cumsum(weights[order][::-1])[::-1], 0.0]
    return total[np.searchsorted(values[order], at, "left")]
