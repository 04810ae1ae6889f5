"""The evidence of all chosen candidates -> its counts above any value, however much there is.

It lies on disk twice: in parts, each a range of values that fits into memory, and in blocks, in
which the labels of an image are together. Counts are integers, shares fixed-point numbers: sums are
exact, so that neither the order nor the division into parts or blocks changes a digit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TypeVar

import numpy as np

from openmofi.select.blocks import Numbered, run_pass
from openmofi.select.scattered import Scattered

T = TypeVar("T")
SHARE = 720_720
"""The unit in which shares of a mention's mismatched images are counted: 1/1 to 1/16 are exact."""
ONE = 1 << 32
"""The unit in which probabilities are counted."""
_MOST = 16
"""Mismatched images of a mention at most."""
_SHARES = SHARE // np.arange(1, _MOST + 1)
"""The share of one of 1, 2, ... mismatched images."""
_OBSERVED = np.dtype([("value", "f8"), ("confused", "i8"), ("compared", "?")])
RECORD_BYTES = _OBSERVED.itemsize + 4 * 8
"""Bytes of a chosen candidate that is compared with four images."""
_BINS = 80


@dataclass(frozen=True)
class Counts:
    """What lies at or above a value."""

    observed: int = 0
    compared: int = 0
    """Of these, those that have mismatched images to compare with."""
    mismatched: int = 0
    """Sum of shares, in units of SHARE."""
    confused: int = 0
    """Sum of the probabilities that another candidate is shown, in units of ONE."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.observed + other.observed,
            self.compared + other.compared,
            self.mismatched + other.mismatched,
            self.confused + other.confused,
        )


@dataclass(frozen=True)
class EvidencePart:
    """All evidence within a range of values."""

    observed: np.ndarray
    """Ascending."""
    above: Counts
    """Of the parts of larger values."""
    compared_from: np.ndarray
    """Sum from each of the observed to the last one, then 0; so is `confused_from`."""
    confused_from: np.ndarray
    mismatched: list[tuple[int, np.ndarray]]
    """A share, in units of SHARE, and the values of this share, ascending."""

    def mismatched_from(self, values: np.ndarray) -> np.ndarray:
        """Returns the shares of this part at and above some values."""
        found = np.zeros(len(values), np.int64)
        for share, others in self.mismatched:
            found += share * (len(others) - np.searchsorted(others, values, "left"))
        return found

    def counts_at(self, value: float) -> Counts:
        """Returns the counts at and above a value of this range."""
        index = int(np.searchsorted(self.observed, value, "left"))
        return self.above + Counts(
            len(self.observed) - index,
            int(self.compared_from[index]),
            int(self.mismatched_from(np.array([value]))[0]),
            int(self.confused_from[index]),
        )

    def histogram(self, edges: np.ndarray) -> np.ndarray:
        """Returns [2, bins]: how many observed and mismatched values lie between edges.

        Values outside count in the first or the last bin.
        """
        below = np.zeros((2, len(edges)), np.int64)
        for kind, values in ((0, self.observed), *((1, others) for _, others in self.mismatched)):
            inner = np.searchsorted(values, edges[1:-1], "left")
            below[kind] += np.concatenate([[0], inner, [len(values)]])
        return np.diff(below)


@dataclass(frozen=True)
class EvidenceBlock:
    """Evidence of neighbouring mentions; arrays have one element, or row, per mention."""

    observed: np.ndarray
    mismatched: np.ndarray
    confused: np.ndarray
    image: np.ndarray
    """Number of its image; those of an image are together."""


class LabelEvidence:
    """Collects evidence, then gives it back part by part or block by block."""

    def __init__(self, folder: Path, splits: Sequence[float] = (), *, threads: int = 1):
        """Begins without any.

        Args:
            folder: the folder to create.
            splits: the values that begin the second and every later part, ascending.
            threads: parts or blocks in memory at once.
        """
        folder.mkdir()
        self._folder, self._splits, self._threads = folder, np.asarray(splits), threads
        self._num_parts = len(splits) + 1
        self._observed = Scattered(folder / "observed", self._num_parts, _OBSERVED)
        # Apart by the number of images that a mention is compared with, hence by share.
        num_others = _MOST * self._num_parts
        self._mismatched = Scattered(folder / "mismatched", num_others, np.dtype(np.float64))
        self._counts = [Counts()] * self._num_parts
        self._blocks: list[Numbered] = []
        self._histograms: dict[int, np.ndarray] = {}
        self._counting = Lock()

    def add(self, block: EvidenceBlock) -> None:
        """Adds mentions; those whose image nobody looked at are left out."""
        looked = ~np.isnan(block.observed)
        block = EvidenceBlock(*(values[looked] for values in vars(block).values()))
        known = ~np.isnan(block.mismatched)
        num_known = known.sum(1)
        part = np.searchsorted(self._splits, block.observed, "right")
        order = np.argsort(part, kind="stable")
        observed = np.empty(len(order), _OBSERVED)
        observed["value"], observed["compared"] = block.observed[order], num_known[order] > 0
        observed["confused"] = np.rint(block.confused[order] * ONE)
        begins = np.searchsorted(part[order], np.arange(1, self._num_parts))
        self._observed.add_sorted(begins, observed)
        others = block.mismatched[known].astype(np.float64)
        part = np.searchsorted(self._splits, others, "right")
        part += (np.repeat(num_known, num_known) - 1) * self._num_parts
        self._mismatched.add(part, others)
        sizes = np.bincount(part, minlength=_MOST * self._num_parts)
        shares = (_SHARES @ sizes.reshape(_MOST, self._num_parts)).tolist()
        with self._counting:
            for part, mine in enumerate(np.split(observed, begins)):
                compared, confused = int(mine["compared"].sum()), int(mine["confused"].sum())
                self._counts[part] += Counts(len(mine), compared, shares[part], confused)
            task = Numbered(len(self._blocks), len(block.observed))
            self._blocks.append(task)
        np.savez(self._folder / f"{task.number}.npz", **vars(block))

    @property
    def counts(self) -> Counts:
        """Everything."""
        return sum(self._counts, Counts())

    @property
    def num_mismatched(self) -> int:
        """Mismatched images of all mentions together."""
        return sum(self._mismatched.sizes)

    def over_parts(self, work: Callable[[EvidencePart], T], title: str) -> Iterator[T]:
        """Yields what a function returns for each part that is not empty, lowest values first.

        On the way, `histogram` is made.
        """
        edges = self.edges

        def read(task: Numbered) -> T:
            part = self._part(task.number)
            self._histograms[task.number] = part.histogram(edges)
            return work(part)

        tasks = [Numbered(number, size) for number, size in enumerate(self._sizes()) if size]
        return run_pass(tasks, read, title, threads=self._threads)

    def over_blocks(self, work: Callable[[EvidenceBlock], T], title: str) -> Iterator[T]:
        """Yields what a function returns for each block."""

        def read(task: Numbered) -> T:
            with np.load(self._folder / f"{task.number}.npz") as stored:
                return work(EvidenceBlock(**stored))

        return run_pass(self._blocks, read, title, threads=self._threads)

    def part_where(self, crosses: Callable[[Counts], bool]) -> EvidencePart:
        """Returns the lowest part after which the counts of all lower values satisfy something.

        Args:
            crosses: of the counts of a part and all lower ones; true for all of them together.
        """
        below = Counts()
        for number, counts in enumerate(self._counts):
            below += counts
            if crosses(below):
                return self._part(number)
        raise AssertionError("not even all parts together satisfy it")

    @cached_property
    def edges(self) -> np.ndarray:
        """The edges of the histogram's bins, from the 0.05th to the 99.95th percentile."""
        low, high = self._percentiles((0.05, 99.95)) if self.counts.observed else (0.0, 1.0)
        return np.linspace(low, max(high, low + 1e-3), _BINS + 1)

    @property
    def histogram(self) -> np.ndarray:
        """Returns [2, bins]: how many observed and mismatched values lie between the edges.

        Values outside count in the first or the last bin.
        """
        if not self._histograms:
            for _ in self.over_parts(lambda part: None, "histogram"):
                pass
        return sum(self._histograms.values(), np.zeros((2, _BINS), np.int64))

    def _percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Returns percentiles of all values, interpolated as by np.percentile.

        Args:
            wanted: from 0 to 100; there must be some value.
        """
        at = [share / 100 * (sum(self._sizes()) - 1) for share in wanted]
        places = {place for exact in at for place in (math.floor(exact), math.ceil(exact))}
        found, begin = {}, 0
        for number, size in enumerate(self._sizes()):
            mine = sorted(place for place in places if begin <= place < begin + size)
            if mine:
                others = [values for _, values in self._others(number)]
                values = np.concatenate([self._observed.read(number)["value"], *others])
                index = [place - begin for place in mine]
                found |= zip(mine, np.partition(values, index)[index].tolist(), strict=True)
            begin += size
        around = [(found[math.floor(exact)], found[math.ceil(exact)]) for exact in at]
        between = zip(around, at, strict=True)
        return [low + (high - low) * (exact % 1) for (low, high), exact in between]

    def _sizes(self) -> list[int]:
        """Returns the number of values, observed and mismatched, of each part."""
        others = np.reshape(self._mismatched.sizes, (_MOST, self._num_parts)).sum(0)
        return (others + self._observed.sizes).tolist()

    def _others(self, number: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yields each share of mismatched images of a part, and their values in no order."""
        for place, share in enumerate(_SHARES.tolist()):
            values = self._mismatched.read(place * self._num_parts + number)
            if len(values):
                yield share, values

    def _part(self, number: int) -> EvidencePart:
        observed = self._observed.read(number)
        observed = observed[np.argsort(observed["value"])]
        return EvidencePart(
            np.ascontiguousarray(observed["value"]),
            sum(self._counts[number + 1 :], Counts()),
            _sums_from(observed["compared"]),
            _sums_from(observed["confused"]),
            [(share, np.sort(values)) for share, values in self._others(number)],
        )


def _sums_from(values: np.ndarray) -> np.ndarray:
    """Returns the sum from each value to the last one, then 0."""
    return np.append(np.cumsum(values[::-1], dtype=np.int64)[::-1], 0)
