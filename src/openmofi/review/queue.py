"""Mentions -> which one to ask about next: where an answer changes most labels.

What an answer changes is computed from the model that learns from it (select/answer_model.py), with
the chosen entity against all else. With z the log odds of a label and v the variance that the shift
of its name and entity still has, "wrong" moves the labels alike by d = -v expit(z + d) and "right"
by d = v (1 - expit(z + d)), other entities of the name by half of that. Counted are those that
cross the threshold, and the label itself; both answers weighted by their probabilities,
expit(z / sqrt(1 + pi v / 8)) for "right" (MacKay, Neural Computation 4, 1992).

An answer changes the worth of the mentions of its name only, so that the next question comes at
once, whatever the number of mentions.
"""

from __future__ import annotations

import math

import numpy as np

from openmofi.label.score import expit
from openmofi.review.pool import Pool
from openmofi.select.answer_model import SPREAD

_STEPS, _ROUNDS = 8, 50
_APART = 1e4
"""Distance of groups on the axis on which they are sorted; log odds are far smaller."""


class Queue:
    """What to ask about; answers change the order at once."""

    def __init__(self, pool: Pool):
        self.pool = pool
        # A name's mentions come pair by pair and sorted, so that neighbours are looked up together.
        order = np.lexsort((pool.evidence, pool.pair, pool.name))
        self._pairs, self._names = (_Groups(k, pool, order) for k in (pool.pair, pool.name))
        said = np.flatnonzero((pool.said != 0) & pool.open).tolist()
        self._answered = {number: bool(pool.said[number] > 0) for number in said}
        self._skipped: set[int] = set()
        self._worth = np.zeros(len(pool))
        self._renew(order)

    def answer(self, number: int, *, right: bool) -> None:
        """Takes an answer about a mention of the pool."""
        if self.pool.open[number]:
            self._answered[number] = right
            self._renew(self._names.members(number))

    def forget(self, number: int) -> None:
        """Takes an answer back."""
        self._answered.pop(number, None)
        self._renew(self._names.members(number))

    def skip(self, number: int) -> None:
        """Asks no more about a mention."""
        self._skipped.add(number)

    def first(self, k: int = 1) -> list[int]:
        """Returns the numbers of the mentions to ask about, the one that changes most first.

        Of one name as one entity there is only one among them, for its answer changes the others'
        worth.
        """
        worth = np.where(self.pool.open, self._worth, -1.0)
        worth[[*self._answered, *self._skipped]] = -1.0
        best = self._pairs.best(worth)
        order = best[np.argsort(-worth[best], kind="stable")[:k]]
        return order[worth[order] > 0].tolist()

    def worth(self) -> np.ndarray:
        """Returns for each mention how many labels an answer is expected to change."""
        return self._worth

    def _renew(self, numbers: np.ndarray) -> None:
        """Computes the worth of mentions again."""
        pool, pairs, names = self.pool, self._pairs, self._names
        shift, variance = self._learnt(numbers)
        z = pool.evidence[numbers] + shift
        right = expit(z / np.sqrt(1 + math.pi * variance / 8))
        kept, line = z >= pool.threshold, pool.threshold - shift
        worth = np.zeros(len(numbers))
        for sign, chance in ((-1.0, 1 - right), (1.0, right)):
            d = _moved(z, variance, sign)
            changed = pairs.crossing(numbers, line, d)
            others = names.crossing(numbers, line, d / 2) - pairs.crossing(numbers, line, d / 2)
            changed += np.maximum(others, 0)
            itself = kept if sign < 0 else ~kept
            crosses = (z + d < pool.threshold) == kept
            worth += chance * (changed * pool.weight + (itself & ~crosses))
        self._worth[numbers] = np.nan_to_num(worth)

    def _learnt(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shift of mentions after the answers, and its variance."""
        asked = np.array([*self._answered], int)
        right = np.array([*self._answered.values()], bool)
        x, one = self.pool.evidence[asked], SPREAD**2
        groups = self._pairs, self._names
        found = [np.unique(group.of[asked], return_inverse=True) for group in groups]
        effects = [(np.zeros(len(keys)), at) for keys, at in found]
        for _ in range(_ROUNDS if len(asked) else 0):  # Newton steps of a concave sum, in turn
            for values, at in effects:
                p = expit(x + sum(v[of] for v, of in effects))
                slope = np.bincount(at, right - p, len(values)) - values / one
                values += slope / (np.bincount(at, p * (1 - p), len(values)) + 1 / one)
        p = expit(x + sum(v[of] for v, of in effects))
        shift, variance = np.zeros(len(numbers)), np.zeros(len(numbers))
        for (values, at), group, (keys, _) in zip(effects, groups, found, strict=True):
            told = np.bincount(at, p * (1 - p), len(values))
            place = np.searchsorted(keys, group.of[numbers])
            known = np.append(keys, -1)[place] == group.of[numbers]
            shift += np.where(known, np.append(values, 0.0)[place], 0.0)
            variance += 1 / (1 / one + np.where(known, np.append(told, 0.0)[place], 0.0))
        return shift, variance


class _Groups:
    """Mentions of one key together, sorted by their evidence."""

    def __init__(self, keys: np.ndarray, pool: Pool, order: np.ndarray):
        distinct, self.of = np.unique(keys, return_inverse=True)
        self._axis = np.sort(self.of[pool.open] * _APART + pool.evidence[pool.open])
        self._order = order[np.argsort(self.of[order], kind="stable")]
        self._begins = np.searchsorted(self.of[self._order], np.arange(len(distinct) + 1))

    def members(self, number: int) -> np.ndarray:
        """Returns the numbers of the mentions in the group of one."""
        group = self.of[number]
        return self._order[slice(*self._begins[group : group + 2])]

    def best(self, values: np.ndarray) -> np.ndarray:
        """Returns of each group the first mention with its largest value."""
        if not len(values):
            return np.zeros(0, np.int64)
        ordered = values[self._order]
        largest = np.maximum.reduceat(ordered, self._begins[:-1])
        has = np.flatnonzero(ordered == np.repeat(largest, np.diff(self._begins)))
        _, first = np.unique(self.of[self._order[has]], return_index=True)
        return self._order[has[first]]

    def crossing(self, numbers: np.ndarray, threshold: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Returns how many of each mention's group cross a threshold when all move so far."""
        base = self.of[numbers] * _APART
        ends = (
            base + np.clip(end, -_APART / 3, _APART / 3) for end in (threshold, threshold - moved)
        )
        low, high = (np.searchsorted(self._axis, np.nan_to_num(end)) for end in ends)
        return np.abs(high - low).astype(np.float64)


def _moved(z: np.ndarray, variance: np.ndarray, sign: float) -> np.ndarray:
    """Returns how far labels move when one at log odds z is right (1) or wrong (-1)."""
    d = np.zeros(len(z))
    for _ in range(_STEPS):
        p = expit(z + d)
        miss = 1 - p if sign > 0 else -p
        d -= (d - variance * miss) / (1 + variance * p * (1 - p))
    return d
