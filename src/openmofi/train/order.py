"""Which images a step sees: (seed, step) -> images, without a state or a table of the order.

The order is a keyed permutation, so the images of a step follow from the seed and the number of the
step: resuming takes one integer, for any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.arrays.splitmix64 import GOLDEN, finalise
from openmofi.train.class_balance import ClassBalance

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
        return _table(total, key)[index]
    steps = [key * rounds + number for number in range(rounds)]

    def network(left, right, mask):
        for step in steps:
            left, right = right, left ^ (_mix(right, step) & mask)
        return left, right

    return _walk(index, total, network)


def unpermute(
    places: Int[np.ndarray, " n"], *, total: int, key: int, rounds: int = 6
) -> Int[np.ndarray, " n"]:
    """Returns the indices that `permute` sends to some places."""
    if total <= _FEW:
        return _table(total, key).argsort()[places]
    steps = [key * rounds + number for number in reversed(range(rounds))]

    def network(left, right, mask):
        for step in steps:
            left, right = right ^ (_mix(left, step) & mask), left
        return left, right

    return _walk(places, total, network)


def _table(total: int, key: int) -> Int[np.ndarray, " total"]:
    return uniform(np.arange(total), columns=1, key=key)[:, 0].argsort()


def _walk(
    index: Int[np.ndarray, " n"],
    total: int,
    network: Callable[[np.ndarray, np.ndarray, np.uint64], tuple[np.ndarray, np.ndarray]],
) -> Int[np.ndarray, " n"]:
    """Applies a network to both halves of each number, again and again until it is in the range."""
    half = np.uint64(max((int(total - 1).bit_length() + 1) // 2, 1))
    mask = np.uint64((1 << int(half)) - 1)
    values = np.asarray(index, dtype=np.uint64)
    outside = np.ones(len(values), dtype=bool)
    while outside.any():
        walked = values[outside]
        left, right = network(walked >> half, walked & mask, mask)
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
    """The endless sequence of images that a run sees."""

    total: int
    """Number of images, and of places in an epoch."""
    seed: int
    balance: ClassBalance | None = None
    """None if every image comes once per epoch."""

    def rows(self, positions: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the images at some positions of the sequence."""
        epochs, within = positions // self.total, positions % self.total
        rows = np.empty(len(positions), dtype=np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = random_key(self.seed, Purpose.ORDER, epoch)
            rows[here] = self._at(permute(within[here], total=self.total, key=key), key)
        return rows

    def _at(self, places: Int[np.ndarray, " n"], key: int) -> Int[np.ndarray, " n"]:
        """Returns the image at each place of an epoch.

        Systematic sampling: `total` evenly spaced points, shifted together by a random part of
        their distance.
        """
        if self.balance is None:
            return places
        moved = float(uniform(np.zeros(1, np.int64), columns=1, key=key)[0, 0])
        return self.balance.at(places + moved)
