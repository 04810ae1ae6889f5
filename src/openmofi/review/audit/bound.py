"""Checked labels -> a lower bound of the precision of a group, valid whenever one stops.

Labels are drawn without replacement: of those that are left, each comes next with a probability in
proportion to its weight. Those draws that fall into a group of N labels are such draws as well. Let
eps be the share of the group's labels that is wrong. Before one of its draws, let W be the weight
of its unchecked labels, and S its wrong labels found so far, divided by N. A draw of weight w that
is wrong (e = 1) or right (e = 0) pays

    Z = S + e W / (N w),

whose mean, given all earlier draws, is eps. Z is at most U, the payoff of a wrong label of the
least weight. So a bet against «the share is m», which stakes a share c of what could be staked,

    K(m) = mean over c of the product over the draws of (1 - c (Z - m) / (U - m)),    0 < c < 1,

starts at 1, is never negative, and is not expected to grow if m = eps. By Ville's inequality it
ever reaches 1 / alpha with a probability of at most alpha. K grows with m; so the shares that are
not refuted lie below one number, and 1 minus that is the bound of the precision.

The payoff is that of Shekhar, Xu, Lipton, Liang and Ramdas, arXiv 2305.06884 (draws by weight
without replacement); the bets are those of Waudby-Smith and Ramdas, arXiv 2010.09686. Fixed shares,
mixed, need no tuning and do not know how many checks will follow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openmofi.arrays.compiled import compiled

SHARES = 0.99 * 0.7 ** np.arange(9)
"""The shares c. 1 would end the game at the first error."""
STAKES = 1 / np.arange(1, 10) / np.sum(1 / np.arange(1, 10))
"""What is put on each share at the start; the large ones win if there are few errors."""


@dataclass(frozen=True)
class CellTable:
    """Cells of labels that are equal in the draws; one element per cell."""

    labels: np.ndarray
    """Number of labels."""
    weight: np.ndarray
    """Weight of one of them."""


@dataclass(frozen=True)
class Payoffs:
    """One element per draw that fell into the group; all are shares of its labels."""

    value: np.ndarray
    """Z, whose mean is the share of wrong labels."""
    most: np.ndarray
    """U, which Z cannot exceed."""
    worst: np.ndarray
    """The share of wrong labels if everything unchecked after the draw were wrong."""


def payoffs(cells: CellTable, group: np.ndarray, cell: np.ndarray, wrong: np.ndarray) -> Payoffs:
    """Returns the payoffs of a group's draws.

    Args:
        cells: all cells.
        group: bool, which of them are the group.
        cell: of each draw in the group, in order.
        wrong: bool, for each draw.
    """
    draws = np.arange(len(cell))
    drawn = np.zeros((len(cell), len(cells.labels)), np.int64)
    drawn[draws[1:], cell[:-1]] = 1
    left = np.where(group, cells.labels, 0) - np.cumsum(drawn, 0)  # [draw, cell], before the draw
    total = int(cells.labels[group].sum())
    found = np.cumsum(wrong)
    before = (found - wrong) / total
    weight = np.where(cells.weight > 0, cells.weight, 1.0)  # cells without labels have none
    per_wrong = (left @ cells.weight)[:, None] / (total * weight)  # W / (N w), [draw, cell]
    return Payoffs(
        value=before + wrong * per_wrong[draws, cell],
        most=before + np.where(left > 0, per_wrong, 0).max(1, initial=0),
        worst=(found + total - 1 - draws) / total,
    )


def error_bound(found: Payoffs, alpha: float) -> float:
    """Returns the least share of wrong labels that has ever been refuted; 1: none was."""
    if not len(found.value):
        return 1.0
    high = float(found.worst[-1])
    return _least(found.value, found.most, len(found.value), high, 1 / alpha, SHARES, STAKES)


def error_bounds(found: Payoffs, alpha: float) -> np.ndarray:
    """Returns `error_bound` after each draw, which takes the square of the time."""
    return _curve(found.value, found.most, found.worst, 1 / alpha, SHARES, STAKES)


def wealth(found: Payoffs, error: float) -> float:
    """Returns K(error) after the last draw."""
    return _wealth(found.value, found.most, len(found.value), error, np.inf, SHARES, STAKES)


def error_estimate(found: Payoffs) -> float:
    """Returns an estimate of the share of wrong labels: the mean payoff, without bias."""
    return float(np.clip(found.value.mean(), 0, 1)) if len(found.value) else float("nan")


_EQUAL = 1e-12


@compiled
def _wealth(value, most, count, error, wanted, shares, stakes):
    """Returns K(error) after `count` draws, or the first that was at least `wanted`."""
    money = stakes.copy()
    total = money.sum()
    for t in range(count):
        room = most[t] - error
        if room < -_EQUAL:  # no group has so many wrong labels
            return np.inf
        if room > _EQUAL:
            money *= 1 - shares * ((value[t] - error) / room)
            total = money.sum()
            if total >= wanted:
                break
    return total


@compiled
def _least(value, most, count, high, wanted, shares, stakes):
    """Returns the least error below `high` that was refuted by one of `count` draws, or `high`."""
    below = high * (1 - 1e-6)
    if _wealth(value, most, count, below, wanted, shares, stakes) < wanted:
        return high
    low = 0.0
    for _ in range(30):  # to 1e-9
        middle = (low + high) / 2
        if _wealth(value, most, count, middle, wanted, shares, stakes) >= wanted:
            high = middle
        else:
            low = middle
    return high


@compiled
def _curve(value, most, worst, wanted, shares, stakes):
    bounds = np.empty(len(value))
    high = 1.0
    for t in range(len(value)):
        high = _least(value, most, t + 1, min(high, worst[t]), wanted, shares, stakes)
        bounds[t] = high
    return bounds
