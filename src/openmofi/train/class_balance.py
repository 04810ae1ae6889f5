"""Which images an epoch repeats so that rare classes come more often than their share.

An image has the weight n^-balance, where n is the number of images of its rarest class. If images
have one class, a class is seen in proportion to n^(1 - balance). Images of one rarest class weigh
the same, so cumulative weights of the classes are enough, and no number is kept for each image.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from openmofi.train.class_lists import ByClass, ClassLists
from openmofi.train.rows import Rows


class ClassBalance:
    """The images of a part of the data on a line, on which rare classes take more room."""

    def __init__(self, classes: ClassLists, rows: Rows, balance: float):
        """Measures the classes.

        Args:
            classes: of all images, each of which has one.
            rows: the images that come.
            balance: 0 samples the images evenly, 1 the classes.
        """
        order, left_out = classes.by_rarest, rows.left_out
        of_left_out = classes.rarest_of(left_out)
        places = _places_in(order, left_out, of_left_out)
        self._rows, self._order = rows, order
        self._coming = Rows.all_but(np.sort(places), total=rows.total)
        self._counts = np.diff(order.starts)
        self._counts = self._counts - np.bincount(of_left_out, minlength=len(self._counts))
        weights = np.maximum(classes.counts, 1).astype(np.float64) ** -balance
        sums = np.cumsum(self._counts * weights)
        scale = len(rows) / sums[-1]
        self._width, self._ends = weights * scale, sums * scale
        self._last = int(np.flatnonzero(self._counts)[-1])

    def at(self, points: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the images at points of the line, which is as long as there are images.

        A point is a place of the part: where an image takes the room s, evenly spaced points of
        distance 1 meet it floor(s) or ceil(s) times.
        """
        own = np.minimum(np.searchsorted(self._ends, points, side="right"), self._last)
        begin = self._ends[own] - self._counts[own] * self._width[own]
        within = ((points - begin) / self._width[own]).astype(np.int64)
        within = within.clip(0, self._counts[own] - 1)
        first = np.cumsum(self._counts) - self._counts
        rows = self._order.rows[self._coming.of(first[own] + within)]
        return self._rows.places(rows.astype(np.int64))


def _places_in(
    order: ByClass, rows: Int[np.ndarray, " n"], classes: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns where images of these rarest classes stand in the order, by bisection."""
    low, high = order.starts[classes], order.starts[classes + 1]
    while len(rows) and (low < high).any():
        middle = (low + high) // 2
        before = order.rows[np.minimum(middle, len(order.rows) - 1)] < rows
        low, high = np.where(before & (low < high), middle + 1, low), np.where(before, high, middle)
    return low
