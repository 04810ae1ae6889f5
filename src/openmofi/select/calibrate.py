"""The threshold on clip_z for a wanted share of wrong labels, found without any label.

Two groups: a chosen candidate is either shown or not. What the unshown ones score is measured by
giving every candidate another caption's picture and choosing in the same way. With pi the share of
unshown among the chosen,

    rate(t) = pi P(mismatched z > t) / P(observed z > t)

pi is Storey's estimate (2002) at the median of the mismatched scores. The estimate assumes that
wrong candidates look like random pictures: where a caption offers two things that resemble each
other (Chad and Romania), a wrong one scores higher than that, and the true rate is higher.
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
    estimated_false_label_rate: float
    reached: bool
    """Whether the wanted rate was reached; if not, the threshold is the best there is."""
    unshown_share: float
    num_observed: int


def calibrate(
    observed: Float[np.ndarray, " n"],
    mismatched: Float[np.ndarray, " n"],
    *,
    false_label_rate: float,
) -> Calibration:
    """Returns the lowest threshold whose estimated rate of wrong labels is at most the wanted one.

    If there is none, `reached` is False and the estimated rate is near the lowest there is.

    Args:
        observed: clip_z of the chosen candidates with their own pictures.
        mismatched: clip_z of the candidates chosen with other captions' pictures; NaN where the
            other caption offers one of the candidates too, so that nothing is mismatched.
        false_label_rate: wanted share of wrong labels among those kept, in (0, 1).
    """
    if not len(observed):
        return Calibration(0.0, 0.0, True, 0.0, 0)
    observed, mismatched = np.sort(observed), np.sort(mismatched[~np.isnan(mismatched)])
    if not len(mismatched):  # one entity alone: no picture is certainly of something else
        return Calibration(float(observed[0]), 1.0, False, 1.0, len(observed))
    median = np.median(mismatched)
    unshown = min(1.0, 2 * float(np.searchsorted(observed, median, "right")) / len(observed))
    above = len(observed) - np.arange(len(observed))  # kept at threshold observed[i]
    false = len(mismatched) - np.searchsorted(mismatched, observed, "left")
    rate = np.minimum(unshown * (false / len(mismatched)) / (above / len(observed)), 1.0)
    rate[above < _FEWEST_KEPT * len(observed)] = 1.0  # too few to say anything of their rate
    index = int(np.argmax(rate <= false_label_rate))
    reached = bool(rate[index] <= false_label_rate)
    if not reached:  # not the very minimum, which may keep next to nothing for a little less
        index = int(np.argmax(rate <= _NEAR_BEST * rate.min()))
    return Calibration(float(observed[index]), float(rate[index]), reached, unshown, len(observed))
