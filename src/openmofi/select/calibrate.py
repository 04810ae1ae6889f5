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

import math
from dataclasses import dataclass, replace

import numpy as np

from openmofi.select.evidence import ONE, SHARE, Counts, EvidencePart, LabelEvidence
from openmofi.select.interval import rate_interval

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

    def times(self, factor: float) -> Calibration:
        """Returns it with so many times the rates."""
        names = ("estimated_false_label_rate", "low_rate", "high_rate", "confused_share")
        return replace(self, **{n: min(factor * getattr(self, n), 1.0) for n in names})

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
    evidence: LabelEvidence,
    *,
    false_label_rate: float,
    unshown_share: float | None = None,
    unshown_error: float = 0.0,
) -> Calibration:
    """Returns the lowest threshold whose estimated rate of wrong labels is at most the wanted one.

    If there is none, `reached` is False and the estimated rate is near the lowest possible one. The
    observed are compared with the mismatched of the same mentions; a mention counts once, however
    many mismatched images it has.

    Args:
        evidence: of all chosen candidates.
        false_label_rate: wanted share of wrong labels among those kept, in (0, 1).
        unshown_share: pi; the default is Storey's estimate (J. R. Stat. Soc. B 64, 2002) at the
            median of the mismatched.
        unshown_error: standard error of a given unshown_share.
    """
    whole = evidence.counts
    if not whole.observed:
        return Calibration(0.0, 0.0, 0.0, 0.0, True, 0.0, 0.0, 0)
    if not whole.compared:  # a single entity: no image certainly shows something else
        least = evidence.part_where(lambda below: below.observed > 0).observed[0]
        return Calibration(float(least), 1.0, 0.0, 1.0, False, 1.0, 0.0, whole.observed)
    if unshown_share is None:
        unshown_share, unshown_error = _storey(evidence)
    fewest = _FEWEST_KEPT * whole.compared

    def search(part: EvidencePart, at_most: float) -> tuple[_Threshold | None, float]:
        """Returns (the lowest value whose rate is low enough, or None; the lowest rate)."""
        rates = _rates(part, unshown_share, fewest)
        index = np.argmax(rates <= at_most) if len(rates) else 0
        found = None
        if len(rates) and rates[index] <= at_most:
            value = float(part.observed[index])
            found = _Threshold(value, float(rates[index]), part.counts_at(value))
        return found, float(rates.min(initial=1.0))

    def lowest(at_most: float) -> tuple[_Threshold | None, float]:
        found = list(evidence.over_parts(lambda part: search(part, at_most), "calibrate"))
        choice = next((choice for choice, _ in found if choice), None)
        return choice, min(least for _, least in found)

    choice, least = lowest(false_label_rate)
    reached = choice is not None
    if choice is None:  # not the minimum, which may keep almost nothing for a slightly lower rate
        choice, _ = lowest(_NEAR_BEST * least)
    assert choice is not None
    low, high = rate_interval(
        evidence, choice.threshold, choice.counts, unshown_share, unshown_error
    )
    return Calibration(
        choice.threshold,
        choice.rate,
        min(low, choice.rate),
        max(high, choice.rate),
        reached,
        unshown_share,
        choice.counts.confused / ONE / choice.counts.observed,
        whole.observed,
    )


@dataclass(frozen=True)
class _Threshold:
    """A threshold, the rate of wrong labels that it gives, and what it keeps."""

    threshold: float
    rate: float
    counts: Counts


def _rates(part: EvidencePart, unshown_share: float, fewest: float) -> np.ndarray:
    """Returns the estimated rate of wrong labels at each of a part's observed values.

    Where fewer than `fewest` that can be compared are kept, it is 1.
    """
    first = np.searchsorted(part.observed, part.observed, "left")
    kept = part.above.observed + len(part.observed) - first
    compared = part.above.compared + part.compared_from[first]
    false = (part.above.mismatched + part.mismatched_from(part.observed)) / SHARE
    confusion = (part.above.confused + part.confused_from[first]) / ONE / kept
    rate = np.minimum(unshown_share * false / np.maximum(compared, 1) + confusion, 1.0)
    rate[compared < fewest] = 1.0  # too few for an estimate
    return rate


def _storey(evidence: LabelEvidence) -> tuple[float, float]:
    """Returns twice the share of the observed below the median of the mismatched, and its error."""
    whole = evidence.counts
    part = evidence.part_where(lambda below: 2 * below.mismatched >= whole.mismatched)
    values = np.concatenate([others for _, others in part.mismatched])
    shares = np.concatenate([np.full(len(others), share) for share, others in part.mismatched])
    order = np.argsort(values, kind="stable")
    below = whole.mismatched - part.above.mismatched - shares.sum()
    median = values[order][np.argmax(2 * (below + np.cumsum(shares[order])) >= whole.mismatched)]
    after = int(np.searchsorted(part.observed, median, "right"))
    above = part.above.compared + int(part.compared_from[after])
    share = (whole.compared - above) / whole.compared
    error = math.sqrt((share * (1 - share) + share / 2) / whole.compared)  # the median's included
    return min(1.0, 2 * share), 2 * error
