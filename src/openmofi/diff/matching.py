"""Two versions -> blocks of rows of the same pairs, in memory that does not grow with the rows.

A shard whose rows have the same places and keys in both is compared as it lies. All other rows are
spilled into files by the hash of what names them, first (shard, key), and those that find nobody
by (key, caption, url), so that a repacked input is recognised; each file is then joined in memory.
Rows of equal names are matched in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from openmofi.arrays.runs import repeat_runs, run_starts
from openmofi.diff.rules import hashes, joined
from openmofi.diff.version import ROWS, LabelVersion, read_rows

T = TypeVar("T")
_ROWS_AT_ONCE = 200_000
"""Rows of each version that are joined in memory."""
_MOST_PARTS = 100
"""Files of each version that are open at once, of two kinds; systems often allow 1,024."""
_ROWS_TO_SPILL = 200_000
"""Rows that are collected before they are written, so that the files' batches are not tiny."""


@dataclass(frozen=True)
class AlignedRows:
    """Rows of both versions; either all are the same pairs, or one of the two is empty."""

    before: pa.Table
    after: pa.Table

    @property
    def num_pairs(self) -> int:
        """Different pairs."""
        return max(len(self.before), len(self.after))

    @property
    def is_matched(self) -> bool:
        """Whether its pairs are in both versions."""
        return len(self.before) == len(self.after)


def blocks(before: LabelVersion, after: LabelVersion, folder: Path) -> Iterator[AlignedRows]:
    """Yields every row of both versions once.

    Args:
        before: one version.
        after: the other.
        folder: an empty folder for files that are not needed afterwards.
    """
    whole = before.i2e.resolve() != after.i2e.resolve()
    versions = before, after
    named = any(v.rule.taught is not None or v.corrections is not None for v in versions)
    parts = max(-(-max(before.num_pairs, after.num_pairs) // _ROWS_AT_ONCE), 1)
    parts = min(parts, _MOST_PARTS)
    by_place, by_text = (_Spill(folder, name, parts) for name in ("place", "text"))
    for rows, found in read_ahead(_shards(before, after, whole, named)):
        if rows["key"].equals(found["key"]) and rows["shard"].equals(found["shard"]):
            yield AlignedRows(rows, found)
        else:
            by_place.add(0, rows)
            by_place.add(1, found)
    for one, other in read_ahead(by_place.joined()):
        if len(one) == len(other):
            yield AlignedRows(one, other)
        else:
            by_text.add(0, one)
            by_text.add(1, other)
    for one, other in read_ahead(by_text.joined()):
        yield AlignedRows(one, other)


def _shards(
    before: LabelVersion, after: LabelVersion, whole: bool, named: bool
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yields the rows of both versions of every shard; none where one does not have it."""
    nobody = ROWS.empty_table()
    partner = {shard.name: number for number, shard in enumerate(after.shards)}
    for number, shard in enumerate(before.shards):
        path, other = before.i2e / shard.file, partner.pop(shard.name, None)
        base = read_rows(path, whole=whole, named=named)
        rows, found = before.read(number, base), nobody
        if other is not None:
            other_path = after.i2e / after.shards[other].file
            if other_path.resolve() != path.resolve():
                base = read_rows(other_path, whole=whole, named=named)
            found = after.read(other, base)
        yield rows, found
    for number in sorted(partner.values()):
        path = after.i2e / after.shards[number].file
        yield nobody, after.read(number, read_rows(path, whole=whole, named=named))


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yields the items; the next one is made in a thread while this one is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item


class _Spill:
    """Rows of both versions on disk, in parts by the hash of what names them."""

    def __init__(self, folder: Path, by: str, parts: int):
        self._folder, self._by, self._parts = folder, by, parts
        self._writers: dict[tuple[int, int], pa.ipc.RecordBatchFileWriter] = {}
        self._waiting: tuple[list[pa.Table], list[pa.Table]] = ([], [])

    def _path(self, side: int, part: int) -> Path:
        return self._folder / f"{self._by}-{side}-{part}.arrow"

    def _identity(self, rows: pa.Table) -> np.ndarray:
        if self._by == "text":
            return rows["text"].to_numpy()
        shard = rows["shard"].combine_chunks().dictionary_encode()
        of_shard = hashes(shard.dictionary)[shard.indices.to_numpy()]
        return joined(of_shard, hashes(rows["key"].combine_chunks()))

    def add(self, side: int, rows: pa.Table) -> None:
        """Writes rows of one version, now or later."""
        self._waiting[side].append(rows)
        if sum(map(len, self._waiting[side])) >= _ROWS_TO_SPILL:
            self._flush(side)

    def _flush(self, side: int) -> None:
        rows = pa.concat_tables([ROWS.empty_table(), *self._waiting[side]]).combine_chunks()
        self._waiting[side].clear()
        part = (self._identity(rows) >> np.uint64(32)) % np.uint64(self._parts)
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(self._parts), "right")
        rows = rows.take(pa.array(order)).combine_chunks()
        begin = 0
        for number, end in enumerate(ends.tolist()):
            if end > begin:
                self._writer(side, number).write_table(rows.slice(begin, end - begin))
            begin = end

    def _writer(self, side: int, part: int) -> pa.ipc.RecordBatchFileWriter:
        key = (side, part)
        if key not in self._writers:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            path = str(self._path(side, part))
            self._writers[key] = pa.ipc.new_file(path, ROWS, options=options)
        return self._writers[key]

    def joined(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Yields, of each part, the matched rows of both, and the others of either."""
        for side in (0, 1):
            self._flush(side)
        for writer in self._writers.values():
            writer.close()
        for part in range(self._parts):
            one, other = self._read(0, part), self._read(1, part)
            first, second = _match(self._identity(one), self._identity(other))
            yield one.take(pa.array(first)), other.take(pa.array(second))
            for side, (rows, matched) in enumerate(((one, first), (other, second))):
                left = np.ones(len(rows), bool)
                left[matched] = False
                lonely = rows.filter(pa.array(left))
                if len(lonely):
                    nobody = ROWS.empty_table()
                    yield (nobody, lonely) if side else (lonely, nobody)

    def _read(self, side: int, part: int) -> pa.Table:
        if (side, part) not in self._writers:
            return ROWS.empty_table()
        path = self._path(side, part)
        with pa.OSFile(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        path.unlink()
        return table.combine_chunks()


def _match(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of both that have the same identity, the n-th of it with the n-th."""
    named = [_numbered(identity) for identity in (one, other)]
    _, first, second = np.intersect1d(*named, assume_unique=True, return_indices=True)
    order = np.argsort(first)
    return first[order], second[order]


def _numbered(identity: np.ndarray) -> np.ndarray:
    """Returns 64 bits for each identity and its number among equal ones."""
    order = np.argsort(identity, kind="stable")
    starts = run_starts(identity[order])
    number = np.empty(len(identity), np.int64)
    number[order] = np.arange(len(identity)) - repeat_runs(starts, starts, len(identity))
    return joined(number, identity)
