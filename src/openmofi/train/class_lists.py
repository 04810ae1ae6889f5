"""The classes of a dataset's images, as flat arrays that may be mapped from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int

_AT_ONCE = 1 << 20


def flat_lists(
    column: pa.ChunkedArray,
) -> tuple[Int[np.ndarray, " n_plus_one"], Int[np.ndarray, " m"]]:
    """Returns the starts and the values of a list column; a null is an empty list."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    return starts, pc.list_flatten(column).to_numpy().astype(np.int64)


@dataclass(frozen=True)
class ByClass:
    """The images in the order of their rarest class; of one class, in the order of the rows."""

    rows: Int[np.ndarray, " images"]
    starts: Int[np.ndarray, " classes_plus_one"]


@dataclass(frozen=True)
class ClassLists:
    """The class indices of each image, best first, in two flat arrays."""

    starts: Int[np.ndarray, " images_plus_one"]
    values: Int[np.ndarray, " labels"]
    counts: Int[np.ndarray, " classes"]
    """Number of images of each class."""
    longest: int
    """Largest number of classes of an image, at least 1."""
    known_order: ByClass | None = None
    """`by_rarest`, where it was computed before."""

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], *, classes: int = 0) -> ClassLists:
        """Builds them from one list per image, of at least so many classes."""
        starts = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        values = np.array([c for row in lists for c in row], dtype=np.int64)
        return cls.flat(starts, values, classes=classes)

    @classmethod
    def flat(
        cls, starts: Int[np.ndarray, " n"], values: Int[np.ndarray, " m"], *, classes: int
    ) -> ClassLists:
        """Builds them from the flat arrays, in which every class is at least 0."""
        counts = np.bincount(values, minlength=classes)
        return cls(starts, values, counts, max(int(np.diff(starts).max(initial=0)), 1))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def padded(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n K"]:
        """Returns the lists of some images, padded with -1 to the longest of all images."""
        lengths, values = self._of(rows)
        padded = np.full((len(rows), self.longest), -1, dtype=np.int64)
        padded[np.arange(self.longest) < lengths[:, None]] = values
        return padded

    def counts_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " classes"]:
        """Returns the number of some images of each class."""
        return np.bincount(self._of(rows)[1], minlength=len(self.counts))

    def showing(self, wanted: Bool[np.ndarray, " classes"]) -> Int[np.ndarray, " n"]:
        """Returns the images of any of the wanted classes, ascending; every image has a class."""
        found = [np.zeros(0, np.int64)]
        for first, starts, values in self._pieces():
            found.append(first + np.flatnonzero(np.logical_or.reduceat(wanted[values], starts)))
        return np.concatenate(found)

    @cached_property
    def by_rarest(self) -> ByClass:
        """The images in the order of their rarest class; every image has one."""
        if self.known_order is not None:
            return self.known_order
        rarest = np.empty(len(self), np.uint32)
        for first, starts, values in self._pieces():
            rarest[first : first + len(starts)] = self._rarest(starts, values)
        rows = np.argsort(rarest, kind="stable")
        counts = np.bincount(rarest, minlength=len(self.counts))
        return ByClass(rows, np.concatenate([[0], np.cumsum(counts)]))

    def rarest_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Returns the rarest class of each of some images."""
        lengths, values = self._of(rows)
        return self._rarest(np.cumsum(lengths) - lengths, values)

    def _rarest(
        self, starts: Int[np.ndarray, " n"], values: Int[np.ndarray, " m"]
    ) -> Int[np.ndarray, " n"]:
        """Returns the rarest class of each list; of equally rare ones, the first class."""
        if not len(starts):
            return starts
        keys = self.counts[values].astype(np.int64) * len(self.counts) + values
        return np.minimum.reduceat(keys, starts) % len(self.counts)

    def _of(
        self, rows: Int[np.ndarray, " n"]
    ) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
        """Returns lengths and values of the lists of some images."""
        begin = self.starts[rows]
        lengths = self.starts[rows + 1] - begin
        shift = begin - (np.cumsum(lengths) - lengths)
        places = np.repeat(shift, lengths) + np.arange(lengths.sum())
        return lengths, self.values[places]

    def _pieces(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields the first image of a piece, where its lists start, and their values."""
        for first in range(0, len(self), _AT_ONCE):
            ends = self.starts[first : first + _AT_ONCE + 1]
            yield first, ends[:-1] - ends[0], self.values[ends[0] : ends[-1]]
