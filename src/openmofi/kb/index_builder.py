"""Writes the index of names in little memory, however many names there are.

In: names.parquet, batch by batch. Out: the arrays of `index.NameIndex`. Names are spread over files
by the top bits of their hashes; the files are then sorted one at a time and written one after the
other.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.mapped import one_chunk, raw_to_npy
from openmofi.kb.index import (
    LENGTH_BITS,
    LISTED,
    LISTED_SPELLINGS,
    MAX_CANDIDATES,
    SECOND_BITS,
    SPELLING_SHIFT,
)
from openmofi.kb.spelling import CAPITALS, LARGE, SMALL

_NAMES_PER_BUCKET = 8
_PARTITIONS = 64
_PARTITION_BITS = 6
_RECORD = np.dtype([("hash", np.uint64), ("value", np.uint32)])


class HashCollision(Exception):
    """Two different names have the same hash under this seed."""


@dataclass(frozen=True)
class IndexSummary:
    """The size of an index."""

    num_keys: int
    max_tokens: int


class IndexBuilder:
    """Builds an index from any number of sorted names."""

    def __init__(self, folder: Path, hasher: Hasher, *, num_names: int):
        """Creates the folder and its temporary files.

        Args:
            folder: where the arrays go.
            hasher: hashes the names.
            num_names: at least the number of distinct names.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._hasher = folder, hasher
        self._parts = folder / "parts"
        self._parts.mkdir()
        self._first = np.zeros(_power_of_two(num_names // 4), np.uint16)
        self._second = np.zeros(_power_of_two(num_names * 2 // 3), np.uint8)
        self._files = [(self._parts / str(i)).open("wb") for i in range(_PARTITIONS)]
        self._list_rows = (folder / "list_rows.raw").open("wb")
        self._list_weights = (folder / "list_weights.raw").open("wb")
        self._list_start = [np.zeros(1, np.uint32)]
        self._num_lists = self._num_listed = self._num_keys = self._max_tokens = 0
        self._open: pa.Table | None = None

    def add(self, names: pa.Table) -> None:
        """Adds rows of names.parquet in its order: all rows of a name together, best first."""
        names = names.select(["key", "spelling", "entity", "weight"])
        if self._open is not None:
            names = pa.concat_tables([self._open, names])
        if not len(names):
            return
        names = names.combine_chunks()
        keys = names["key"].chunk(0)
        new = np.ones(len(keys), bool)
        new[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(new)
        # The last name may continue in the next call.
        last = int(starts[-1])
        # A copy: a slice would keep the whole batch in memory.
        self._open = names.take(pa.array(np.arange(last, len(names))))
        if last:
            self._add(names, starts)

    def _add(self, names: pa.Table, starts: np.ndarray) -> None:
        """Adds whole names; name i has the rows starts[i]:starts[i + 1]."""
        keys = one_chunk(names["key"].take(pa.array(starts[:-1])))
        hashes = self._hasher.strings(keys)
        # A name that is sometimes written in capitals is one with a capital.
        written = names["spelling"].to_numpy()
        written = np.where(written & (SMALL | LARGE), written & ~CAPITALS, written)
        number = np.zeros(LISTED_SPELLINGS.max() + 1, np.uint32)
        number[LISTED_SPELLINGS] = np.arange(len(LISTED_SPELLINGS))
        rows = names["entity"].to_numpy().astype(np.uint32) | number[written] << SPELLING_SHIFT
        self._note_beginnings(keys)
        value = self._values(starts, rows, names["weight"].to_numpy())
        partition = (hashes >> np.uint64(64 - _PARTITION_BITS)).astype(np.int64)
        order = np.argsort(partition, kind="stable")
        edges = np.searchsorted(partition[order], np.arange(_PARTITIONS + 1))
        records = np.empty(len(hashes), _RECORD)
        records["hash"], records["value"] = hashes[order], value[order]
        for i, file in enumerate(self._files):
            records[edges[i] : edges[i + 1]].tofile(file)
        self._num_keys += len(hashes)

    def _note_beginnings(self, keys: pa.StringArray) -> None:
        count = pc.count_substring(keys, " ").to_numpy() + 1
        self._max_tokens = max(self._max_tokens, int(count.max()))
        tokens = pc.split_pattern(keys, " ", max_splits=2)
        at = self._hasher.strings(pc.list_element(tokens, 0)) >> _shift(len(self._first))
        bits = np.uint16(1) << (np.minimum(count, LENGTH_BITS) - 1).astype(np.uint16)
        np.bitwise_or.at(self._first, at, bits)
        longer = np.flatnonzero(count > 1)
        tokens, count = tokens.take(pa.array(longer)), count[longer]
        pairs = pc.binary_join_element_wise(*(pc.list_element(tokens, i) for i in (0, 1)), " ")
        at = self._hasher.strings(pairs) >> _shift(len(self._second))
        bits = np.uint8(1) << (np.minimum(count - 1, SECOND_BITS) - 1).astype(np.uint8)
        np.bitwise_or.at(self._second, at, bits)

    def _values(self, starts: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Returns `NameIndex.value` of names, and writes the lists of names of several entities."""
        counts = np.minimum(np.diff(starts), MAX_CANDIDATES)
        begin = starts[:-1]
        listed = np.flatnonzero(counts > 1)
        value = rows[begin] & ~LISTED
        value[listed] = LISTED | (self._num_lists + np.arange(len(listed))).astype(np.uint32)
        sizes = counts[listed]
        within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        items = np.repeat(begin[listed], sizes) + within
        rows[items].tofile(self._list_rows)
        weight[items].astype(np.float32).tofile(self._list_weights)
        self._list_start.append((self._num_listed + np.cumsum(sizes)).astype(np.uint32))
        self._num_lists += len(listed)
        self._num_listed += len(items)
        return value

    def finish(self) -> IndexSummary:
        """Writes the arrays.

        Raises:
            HashCollision: two names have the same hash; try another seed.
        """
        if self._open is not None:
            self._add(self._open.combine_chunks(), np.array([0, len(self._open)]))
        for file in (*self._files, self._list_rows, self._list_weights):
            file.close()
        try:
            self._write_keys()
        finally:
            shutil.rmtree(self._parts)
        np.save(self._folder / "first.npy", self._first)
        np.save(self._folder / "second.npy", self._second)
        np.save(self._folder / "list_start.npy", np.concatenate(self._list_start))
        raw_to_npy(self._folder / "list_rows", np.dtype(np.uint32))
        raw_to_npy(self._folder / "list_weights", np.dtype(np.float32))
        return IndexSummary(self._num_keys, self._max_tokens)

    def _write_keys(self) -> None:
        buckets = _power_of_two(max(self._num_keys // _NAMES_PER_BUCKET, _PARTITIONS))
        bits = buckets.bit_length() - 1
        directory = np.zeros(buckets + 1, np.uint32)
        done = 0
        with (
            (self._folder / "rest.raw").open("wb") as rest,
            (self._folder / "value.raw").open("wb") as value,
        ):
            for i in range(_PARTITIONS):
                records = np.fromfile(self._parts / str(i), _RECORD)
                records = records[np.argsort(records["hash"], kind="stable")]
                hashes = records["hash"]
                # The bits of a hash that `rest` and the bucket keep must tell names apart.
                kept = hashes >> np.uint64(32 - bits)
                if np.any(kept[1:] == kept[:-1]):
                    raise HashCollision
                kept.astype(np.uint32).tofile(rest)
                records["value"].tofile(value)
                share = buckets // _PARTITIONS
                edges = np.arange(i * share, (i + 1) * share, dtype=np.uint64)
                begin = np.searchsorted(hashes >> np.uint64(64 - bits), edges)
                directory[i * share : (i + 1) * share] = done + begin
                done += len(records)
        directory[-1] = done
        np.save(self._folder / "directory.npy", directory)
        raw_to_npy(self._folder / "rest", np.dtype(np.uint32))
        raw_to_npy(self._folder / "value", np.dtype(np.uint32))


def _power_of_two(at_least: int) -> int:
    return 1 << max(3, (at_least - 1).bit_length())


def _shift(size: int) -> np.uint64:
    """Returns the right shift that makes a hash's top bits an index of `size` items."""
    return np.uint64(64 - (size - 1).bit_length())
