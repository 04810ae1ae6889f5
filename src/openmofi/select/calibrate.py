"""The threshold for a wanted share of wrong labels, found without any label.

A chosen candidate is wrong for one of two reasons. Either nothing that the mention may mean is
shown: two groups. What the unshown ones score is measured by giving every mention another
caption's picture and choosing in the same way. With pi the share of unshown among the chosen,

    rate(t) = pi P(mismatched evidence > t) / P(observed evidence > t)

This assumes that wrong candidates look like random pictures, which is false where a caption offers
two things that resemble each other (Chad and Romania), for then the wrong one of a mention's own
candidates may be chosen. So, second, the joint score's own doubt is added: the mean, over what is
kept, of the probability that another candidate of the mention is the one shown. What no estimate
here can see: something that resembles the entity and that the caption does not offer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_FEWEST_KEPT = 0.01
_NEAR_BEST = 1.1


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it was derived from."""

    threshold: float
    """Of the evidence."""
    estimated_false_label_rate: float
    reached: bool
    """Whether the wanted rate was reached; if not, the threshold is the best there is."""
    unshown_share: float
    confused_share: float
    """Estimated share, among the kept, of which another candidate of the mention is shown."""
    num_observed: int
    """Choices with evidence."""


def calibrate(
    observed: Float[np.ndarray, " n"],
    mismatched: Float[np.ndarray, " n"],
    *,
    false_label_rate: float,
    confused: Float[np.ndarray, " n"] | None = None,
    unshown_share: float | None = None,
) -> Calibration:
    """Returns the lowest threshold whose estimated rate of wrong labels is at most the wanted one.

    If there is none, `reached` is False and the estimated rate is near the lowest there is. The
    observed are compared with the mismatched of the same mentions: those without are popular, and
    score otherwise.

    Args:
        observed: evidence for the chosen candidates from their own pictures; NaN where nobody
            looked, which no threshold keeps.
        mismatched: evidence for the candidates chosen with other captions' pictures; NaN where the
            other caption offers one of the candidates too, so that nothing is mismatched.
        false_label_rate: wanted share of wrong labels among those kept, in (0, 1).
        confused: probability that another candidate of the mention is shown; the default is 0.
        unshown_share: pi; the default is Storey's estimate (J. R. Stat. Soc. B 64, 2002) at the
            median of the mismatched.
    """
    both = ~np.isnan(observed) & ~np.isnan(mismatched)
    own, mismatched = np.sort(observed[both]), np.sort(mismatched[both])
    order = np.argsort(observed, kind="stable")[: int((~np.isnan(observed)).sum())]
    observed = observed[order]
    count = len(observed)
    if not count:
        return Calibration(0.0, 0.0, True, 0.0, 0.0, 0)
    if not len(mismatched):  # one entity alone: no picture is certainly of something else
        return Calibration(float(observed[0]), 1.0, False, 1.0, 0.0, count)
    unshown = _storey(own, mismatched) if unshown_share is None else unshown_share
    kept, kept_own, false = (  # at threshold observed[i]
        len(values) - np.searchsorted(values, observed, "left")
        for values in (observed, own, mismatched)
    )
    confusion = np.zeros(count) if confused is None else _mean_of_kept(confused[order], kept)
    rate = np.minimum(unshown * false / np.maximum(kept_own, 1) + confusion, 1.0)
    rate[kept_own < _FEWEST_KEPT * len(own)] = 1.0  # too few to say anything of their rate
    index = int(np.argmax(rate <= false_label_rate))
    reached = bool(rate[index] <= false_label_rate)
    if not reached:  # not the very minimum, which may keep next to nothing for a little less
        index = int(np.argmax(rate <= _NEAR_BEST * rate.min()))
    return Calibration(
        float(observed[index]),
        float(rate[index]),
        reached,
        float(unshown),
        float(confusion[index]),
        count,
    )


def _storey(observed: np.ndarray, mismatched: np.ndarray) -> float:
    """Returns twice the share of the observed that lie below the median of the mismatched."""
    below = np.searchsorted(observed, np.median(mismatched), "right")
    return min(1.0, 2 * float(below) / len(observed))


def _mean_of_kept(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Returns the mean of the last `kept` values, for each threshold."""
    total = np.r_[np.cumsum(values[::-1].astype(np.float64))[::-1], 0.0]
    return total[len(values) - kept] / np.maximum(kept, 1)
