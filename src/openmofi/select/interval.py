"""The uncertainty of an estimated rate of wrong labels: the counts behind it -> an interval.

It has four sources. What was counted is a sample of images: its variance is that of the sum of
every image's influence on the estimate (the infinitesimal jackknife, Jaeckel 1972; Efron 1982). The
share pi of the unshown has its own error. The assumptions of `calibrate` hold only approximately,
which no number of images fixes. And at a given rate, the number of wrong labels among the kept is
random. The first three make the rate beta-distributed, the fourth makes the number of wrong labels
beta-binomial; the interval consists of its quantiles. No random numbers are drawn.
"""

from __future__ import annotations

import numpy as np

from openmofi.arrays.runs import run_numbers
from openmofi.select.evidence import ONE, SHARE, Counts, EvidenceBlock, LabelEvidence

PROBABILITY = 0.9
"""Probability that the share of wrong labels lies in the interval."""
_ASSUMED = 0.3
"""Relative error of the rate due to the assumptions; docs/labels.md says how it was found."""
_MANY = 20_000
"""Number of labels above which a beta distribution approximates the beta-binomial one."""


def rate_interval(
    evidence: LabelEvidence,
    threshold: float,
    kept: Counts,
    unshown_share: float,
    unshown_error: float,
) -> tuple[float, float]:
    """Returns the least and the largest plausible share of wrong labels among the kept.

    Args:
        evidence: of all chosen candidates.
        threshold: the least evidence that is kept.
        kept: the counts at it, of at least one mention.
        unshown_share: pi.
        unshown_error: its standard error.
    """
    # Half an image more than was seen (Jeffreys' prior), since none seen does not mean never.
    half = evidence.counts.compared / evidence.num_mismatched / 2
    compared = max(kept.compared, 1)
    false = (kept.mismatched / SHARE + half) / compared
    confused = kept.confused / ONE / kept.observed

    scale = 1 / compared  # of the largest influences

    def squares(block: EvidenceBlock) -> int:
        """Returns the sum of the squares of every image's influence, in units of scale^2 / ONE."""
        known = ~np.isnan(block.mismatched)
        num_known = known.sum(1)
        above = (block.mismatched >= threshold).sum(1) / np.maximum(num_known, 1)  # NaN is not
        is_kept = block.observed >= threshold
        influence = unshown_share * (above - false * (is_kept & (num_known > 0))) / compared
        influence += is_kept * (block.confused - confused) / kept.observed
        of_image = np.bincount(run_numbers(block.image), influence / scale)
        return int(np.rint(np.square(of_image) * ONE).astype(np.int64).sum())

    summed = sum(evidence.over_blocks(squares, "calibrate: interval"))
    variance = summed / ONE * scale**2 + (false * unshown_error) ** 2
    variance += (unshown_share * half / compared) ** 2
    rate = min(unshown_share * false + confused, 1.0)
    return _quantiles(rate, float(variance + (_ASSUMED * rate) ** 2), kept.observed)


def _quantiles(rate: float, variance: float, count: int) -> tuple[float, float]:
    """Returns the interval of the share of wrong labels among `count`, around a mean rate."""
    from scipy.stats import beta, betabinom

    rate = min(max(rate, 1e-9), 1 - 1e-9)
    tails = (1 - PROBABILITY) / 2, (1 + PROBABILITY) / 2
    by_chance = rate * (1 - rate)
    if count > _MANY:
        variance += by_chance / count
    size = max(by_chance / max(variance, 1e-12) - 1, 1e-3)  # the equivalent sample size
    shape = rate * size, (1 - rate) * size
    if count > _MANY:
        low, high = beta.ppf(tails, *shape)
        return float(low), float(high)
    low, high = betabinom.ppf(tails, count, *shape) / count
    return float(low), float(high)
