"""Which images a step sees: (seed, step) -> rows, without a state or a table of the order.

The order is a keyed permutation, so the rows of a step follow from the seed and the step's number:
resuming takes one integer, for any number of processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.arrays.splitmix64 import GOLDEN, finalise

_FEW = 1024
"""Up to so many places, a permutation is drawn as a table; the network mixes a few unevenly."""


def permute(
    index: Int[np.ndarray, " n"], *, total: int, key: int, rounds: int = 6
) -> Int[np.ndarray, " n"]:
    """Returns where a keyed permutation of range(total) sends each index.

    A Feistel network over the next even number of bits; values outside the range are permuted again
    until they are inside (Black and Rogaway 2002, "cycle walking"). Memory is constant for any
    total. Up to 1,024 places, all permutations are equally likely: there the permutation is the
    order of random numbers.
    """
    if total <= _FEW:
        return uniform(np.arange(total), columns=1, key=key)[:, 0].argsort()[index]
    half = np.uint64(max((int(total - 1).bit_length() + 1) // 2, 1))
    mask = np.uint64((1 << int(half)) - 1)
    values = np.asarray(index, dtype=np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        walked = values[outside]
        left, right = walked >> half, walked & mask
        for number in range(rounds):
            left, right = right, left ^ (_mix(right, key * rounds + number) & mask)
        values = values.copy()
        values[outside] = (left << half) | right
        outside = values >= total
    return values.astype(np.int64)


def _mix(values: np.ndarray, key: int) -> np.ndarray:
    """Returns 64 bits that depend on each value and the key."""
    return finalise(values + np.uint64((key * GOLDEN + 0x632BE59BD9B4E019) % 2**64))


def uniform(index: Int[np.ndarray, " n"], *, columns: int, key: int) -> Float[np.ndarray, "n c"]:
    """Returns numbers in [0, 1) that depend only on each index and the key."""
    cells = np.asarray(index, dtype=np.uint64)[:, None] * np.uint64(columns)
    mixed = _mix(cells + np.arange(columns, dtype=np.uint64), key)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2**53


@dataclass(frozen=True)
class Order:
    """The endless sequence of rows that a run sees."""

    total: int
    """Number of rows of the data, and of places in an epoch."""
    seed: int
    ends: Float[np.ndarray, " total"] | None = None
    """Cumulative shares of the rows in an epoch; None if every row comes once per epoch."""

    def rows(self, positions: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the rows at some positions of the sequence."""
        epochs, within = positions // self.total, positions % self.total
        rows = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = random_key(self.seed, Purpose.ORDER, epoch)
            rows[here] = self._at(permute(within[here], total=self.total, key=key), key)
        return rows

    def _at(self, places: Int[np.ndarray, " n"], key: int) -> Int[np.ndarray, " n"]:
        """Returns the row at each place of an epoch.

        Systematic sampling: `total` evenly spaced points, shifted together by a random part of
        their distance, over the rows' shares; a row with share s comes floor(s) or ceil(s) times.
        """
        if self.ends is None:
            return places
        moved = float(uniform(np.zeros(1, np.int64), columns=1, key=key)[0, 0])
        rows = np.searchsorted(self.ends, places + moved, side="right")
        return np.minimum(rows, self.total - 1)


def balanced_order(
    classes_NK: Int[np.ndarray, "N K"],
    class_counts: Int[np.ndarray, " C"],
    *,
    balance: float,
    seed: int,
) -> Order:
    """Returns an order in which rare classes come more often than their share.

    An image has the weight n^-balance, where n is the number of images of its rarest class. If
    images have one class, a class is seen in proportion to n^(1 - balance).

    Args:
        classes_NK: class indices of each image, padded with -1.
        class_counts: number of images of each class.
        balance: 0 samples the images evenly, 1 the classes.
        seed: keys the order.
    """
    total = len(classes_NK)
    if balance == 0:
        return Order(total, seed)
    counts_NK = np.where(classes_NK >= 0, class_counts[classes_NK.clip(min=0)], total)
    weights = counts_NK.min(1).astype(np.float64) ** -balance
    ends = np.cumsum(weights)
    return Order(total, seed, ends * (total / ends[-1]))
