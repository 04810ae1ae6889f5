"""Ranks of a query's relevant images among all, counted instead of sorted; compiled.

A benchmark asks for the ranks of about ten relevant images among thousands: comparing all scores
with those few costs a fraction of sorting them. Scores are finite; a NaN equals nothing.
"""

from __future__ import annotations

import numpy as np

from openmofi.arrays.compiled import compiled

_FEW = 100
"""Up to so many levels, comparing with each is faster than a search among them (with AVX)."""


@compiled
def expected_precisions(
    scores_QN: np.ndarray,
    first: int,
    members: np.ndarray,
    bounds: np.ndarray,
    include_self: bool,
    result: np.ndarray,
) -> None:
    """Fills in each query's expected scores, with equal similarities in random order.

    Args:
        scores_QN: similarities of the queries first, first + 1, ... to all images; a query's own
            is overwritten if it does not count.
        first: number of the first query.
        members: numbers of all images, class by class.
        bounds: [N, 2] start and end in `members` of each image's class.
        include_self: whether a query is one of its own positives.
        result: [N, 2] average precision, and chance that a positive comes first; NaN for a query
            without positives.
    """
    for q in range(len(scores_QN)):
        row, query = scores_QN[q], first + q
        positives = members[bounds[query, 0] : bounds[query, 1]]
        if not include_self:
            positives = positives[positives != query]
            row[query] = -np.inf
        levels = np.sort(row[positives])
        if len(levels) <= _FEW:
            greater, equal = _compare(row, levels)
        else:
            greater, equal = _search(row, levels)
        result[query, 0] = _precision(levels, greater, equal)
        result[query, 1] = _first(levels, greater, equal)


@compiled
def _compare(row: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many values are greater than, and equal to, each level."""
    greater = np.zeros(len(levels), np.int64)
    equal = np.zeros(len(levels), np.int64)
    for i in range(len(levels)):
        level = levels[i]
        above, same = np.int32(0), np.int32(0)  # 32 bits: twice as many per instruction
        for j in range(len(row)):
            above += np.int32(row[j] > level)
            same += np.int32(row[j] == level)
        greater[i], equal[i] = above, same
    return greater, equal


@compiled
def _search(row: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `_compare` returns, by binary search of each value in the sorted levels."""
    found = np.zeros(len(levels) + 1, np.int64)
    same = np.zeros(len(levels), np.int64)
    for value in row:
        low = np.searchsorted(levels, value)
        found[low] += 1
        if low < len(levels) and levels[low] == value:
            same[low] += 1
    greater = np.zeros(len(levels), np.int64)
    equal = np.zeros(len(levels), np.int64)
    total = 0
    for i in range(len(levels) - 1, -1, -1):
        total += found[i + 1]
        greater[i] = total
    for i in range(len(levels)):
        tied = i > 0 and levels[i] == levels[i - 1]
        equal[i] = equal[i - 1] if tied else same[i]
    # No search ends inside a group of equal levels, so all levels of a group get the same count.
    return greater, equal


@compiled
def _precision(levels: np.ndarray, greater: np.ndarray, equal: np.ndarray) -> float:
    """Returns the mean of (number among the positives) / rank over all orders of equal scores.

    Among t equal scores, r of them positives, place i holds a positive with chance r / t; then
    (i - 1)(r - 1) / (t - 1) positives are expected before it (McSherry and Najork 2008, "Computing
    information retrieval performance measures efficiently in the presence of tied scores").
    """
    count, total = len(levels), 0.0
    end = count
    while end > 0:  # groups of equal levels, from the best
        start = end - 1
        while start > 0 and levels[start - 1] == levels[end - 1]:
            start -= 1
        group, tied = end - start, equal[start]
        before, gain = count - end, (group - 1) / max(tied - 1, 1)
        for i in range(tied):
            total += group / tied * (before + 1 + i * gain) / (greater[start] + 1 + i)
        end = start
    return total / count if count else np.nan


@compiled
def _first(levels: np.ndarray, greater: np.ndarray, equal: np.ndarray) -> float:
    """Returns the chance that a positive comes first."""
    count = len(levels)
    if not count:
        return np.nan
    group = np.sum(levels == levels[count - 1])
    return group / equal[count - 1] if greater[count - 1] == 0 else 0.0


@compiled
def count_before(
    scores: np.ndarray, first: int, listed_scores: np.ndarray, listed: np.ndarray
) -> np.ndarray:
    """Returns how many images rank before each listed one; among equals, the lower number does.

    Args:
        scores: scores of the images first, first + 1, ...
        first: number of the first image.
        listed_scores: scores of the listed images, best first, equal ones by number.
        listed: numbers of the listed images.
    """
    found = np.zeros(len(listed) + 1, np.int64)
    # Each search takes the same steps without branches, half of which would be mispredicted.
    for j in range(len(scores)):
        low, left = 0, len(listed)
        while left > 0:
            half = (left + 1) // 2
            other = listed_scores[low + half - 1]
            tied = (other == scores[j]) & (listed[low + half - 1] < first + j)
            low += half * ((other > scores[j]) | tied)
            left -= half
        found[low] += 1
    # A listed image's own search ends at itself, but it does not rank before itself.
    own = (listed >= first) & (listed < first + len(scores))
    return np.cumsum(found[:-1]) - own


@compiled
def ranks_without_junk(
    before: np.ndarray, kinds: np.ndarray, relevant: int, junk: int
) -> np.ndarray:
    """Returns the ranks of the relevant images, ascending, as if the junk were not there.

    Args:
        before: how many images rank before each listed one, ascending.
        kinds: bits of the lists that hold each listed image.
        relevant: bits of the lists of relevant images.
        junk: bits of the lists that are left out.
    """
    ranks, passed = np.empty(len(kinds), np.int64), 0
    found = 0
    for i in range(len(kinds)):
        if kinds[i] & relevant:
            ranks[found] = before[i] - passed
            found += 1
        if kinds[i] & junk:
            passed += 1
    return ranks[:found]


@compiled
def trapezoid_precision(ranks: np.ndarray, num_positives: int) -> float:
    """Returns the area under precision over recall, by trapezoids.

    Args:
        ranks: ranks of the positives, ascending, from 0.
        num_positives: number of positives.
    """
    total = 0.0
    for j in range(len(ranks)):
        rank = ranks[j]
        before = 1.0 if rank == 0 else j / rank
        total += (before + (j + 1) / (rank + 1)) / 2
    return total / num_positives
