"""Mentions -> which one to ask about next: where an answer changes most labels.

What an answer changes is computed from the model that learns from it (select/learn_corrections.py),
with the chosen entity against all else. With z the log odds of a label and v the variance that the
shift of its name and entity still has, "wrong" moves the labels alike by d = -v expit(z + d) and
"right" by d = v (1 - expit(z + d)), other entities of the name by half of that. Counted are those
that cross the threshold, and the label itself; both answers weighted by their probabilities,
expit(z / sqrt(1 + pi v / 8)) for "right" (MacKay, Neural Computation 4, 1992).
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
        self._groups = [_Groups(k, pool.evidence) for k in (pool.pair, pool.name)]
        said = np.flatnonzero((pool.said != 0) & pool.open).tolist()
        self._answered = {number: bool(pool.said[number] > 0) for number in said}
        self._skipped: set[int] = set()

    def answer(self, number: int, *, right: bool) -> None:
        """Takes an answer about a mention of the pool."""
        if self.pool.open[number]:
            self._answered[number] = right

    def forget(self, number: int) -> None:
        """Takes an answer back."""
        self._answered.pop(number, None)

    def skip(self, number: int) -> None:
        """Asks no more about a mention."""
        self._skipped.add(number)

    def first(self, k: int = 1) -> list[int]:
        """Returns the numbers of the mentions to ask about, the one that changes most first.

        Of one name as one entity there is only one among them, for its answer changes the others'
        worth.
        """
        worth = self.worth()
        worth[~self.pool.open] = -1.0
        worth[[*self._answered, *self._skipped]] = -1.0
        found: list[int] = []
        seen: set[int] = set()
        for number in np.argsort(-worth, kind="stable").tolist():
            if len(found) == k or worth[number] <= 0:
                break
            if self.pool.pair[number] not in seen:
                seen.add(self.pool.pair[number])
                found.append(number)
        return found

    def worth(self) -> np.ndarray:
        """Returns for each mention how many labels an answer is expected to change."""
        pool, (pairs, names) = self.pool, self._groups
        shift, variance = self._learnt()
        z = pool.evidence + shift
        right = expit(z / np.sqrt(1 + math.pi * variance / 8))
        kept = z >= pool.threshold
        worth = np.zeros(len(pool))
        for sign, chance in ((-1.0, 1 - right), (1.0, right)):
            d = _moved(z, variance, sign)
            line = pool.threshold - shift
            changed = pairs.crossing(line, d)
            changed += np.maximum(names.crossing(line, d / 2) - pairs.crossing(line, d / 2), 0)
            itself = kept if sign < 0 else ~kept
            crosses = (z + d < pool.threshold) == kept
            worth += chance * (changed * pool.weight + (itself & ~crosses))
        return np.nan_to_num(worth)

    def _learnt(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shift of each mention after the answers, and its variance."""
        asked = np.array([*self._answered], int)
        right = np.array([*self._answered.values()], bool)
        x, one = self.pool.evidence[asked], SPREAD**2
        effects = [(np.zeros(group.count), group.of[asked]) for group in self._groups]
        for _ in range(_ROUNDS if len(asked) else 0):  # Newton steps of a concave sum, in turn
            for values, at in effects:
                p = expit(x + sum(v[of] for v, of in effects))
                slope = np.bincount(at, right - p, len(values)) - values / one
                values += slope / (np.bincount(at, p * (1 - p), len(values)) + 1 / one)
        p = expit(x + sum(v[of] for v, of in effects))
        shift, variance = np.zeros(len(self.pool)), np.zeros(len(self.pool))
        for (values, at), group in zip(effects, self._groups, strict=True):
            told = np.bincount(at, p * (1 - p), group.count)
            shift += values[group.of]
            variance += 1 / (1 / one + told[group.of])
        return shift, variance


class _Groups:
    """Mentions of one key together, sorted by their evidence."""

    def __init__(self, keys: np.ndarray, evidence: np.ndarray):
        distinct, self.of = np.unique(keys, return_inverse=True)
        self.count = len(distinct)
        known = ~np.isnan(evidence)
        self._axis = np.sort(self.of[known] * _APART + evidence[known])

    def crossing(self, threshold: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """Returns how many of each mention's group cross a threshold when all move so far."""
        base = self.of * _APART
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
