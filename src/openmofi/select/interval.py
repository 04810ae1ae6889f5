"""The uncertainty of an estimated rate of wrong labels: the counts behind it -> an interval.

It has four sources. What was counted is a sample of images: its variance is that of the sum of
every image's influence on the estimate (the infinitesimal jackknife, Jaeckel 1972; Efron 1982). The
share pi of the unshown has its own error. The assumptions of `calibrate` hold only approximately,
which no number of images fixes. And at a given rate, the number of wrong labels among the kept is
random. The first three make the rate beta-distributed, the fourth makes the number of wrong labels
beta-binomial; the interval consists of its quantiles. No random numbers are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

PROBABILITY = 0.9
"""Probability that the share of wrong labels lies in the interval."""
_ASSUMED = 0.3
"""Relative error of the rate due to the assumptions; docs/labels.md says how it was found."""
_MANY = 20_000
"""Number of labels above which a beta distribution approximates the beta-binomial one."""


@dataclass(frozen=True)
class Counted:
    """What a rate is estimated from; one element per mention whose image was looked at."""

    kept: Bool[np.ndarray, " m"]
    both: Bool[np.ndarray, " m"]
    """Whether the mention has mismatched images to compare with."""
    mismatched: Float[np.ndarray, " m"]
    """Share of its mismatched images that would have been kept."""
    confused: Float[np.ndarray, " m"]
    """Probability that another candidate of the mention is shown."""
    image: Int[np.ndarray, " m"]
    num_mismatched: int
    """Number of mismatched images of all mentions together."""


def rate_interval(
    counted: Counted, unshown_share: float, unshown_error: float
) -> tuple[float, float]:
    """Returns the least and the largest plausible share of wrong labels among the kept.

    Args:
        counted: the counts at a threshold that keeps at least one mention.
        unshown_share: pi.
        unshown_error: its standard error.
    """
    kept, both, num_kept = counted.kept, counted.both, int(counted.kept.sum())
    num_both, kept_both = both.sum(), max((kept & both).sum(), 1)
    # Half an image more than was seen (Jeffreys' prior), since none seen does not mean never.
    half = num_both / counted.num_mismatched / 2
    false = (counted.mismatched.sum() + half) / kept_both
    confused = counted.confused[kept].mean()
    influence = unshown_share * (counted.mismatched - false * (kept & both)) / kept_both
    influence += kept * (counted.confused - confused) / num_kept
    of_image = np.bincount(np.unique(counted.image, return_inverse=True)[1], influence)
    variance = np.square(of_image).sum() + (false * unshown_error) ** 2
    variance += (unshown_share * half / kept_both) ** 2
    rate = min(unshown_share * false + confused, 1.0)
    return _quantiles(rate, float(variance + (_ASSUMED * rate) ** 2), num_kept)


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
