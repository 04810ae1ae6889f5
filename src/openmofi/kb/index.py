"""Name -> entities, as flat arrays that are memory-mapped and shared by all processes.

In: canonical names with their candidate entities. Out: a folder of .npy files that opens in
milliseconds whatever its size and takes about 9 bytes a name.

A name is found by its 64-bit hash. The top bits choose a bucket of `directory`, the next 32 are
compared with the few of that bucket in `rest`. So two names collide only if they agree in all of
these, which is checked when the index is built; an n-gram that is no name is taken for one with a
probability of about 2e-9. Before any of it `first` is asked whether a name of n tokens may begin
with this token: most n-grams end there.
"""

import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.kb.arrays import one_chunk, open_array, raw_to_npy
from openmofi.kb.compiled import compiled
from openmofi.kb.hashing import Hasher

MAX_CANDIDATES = 30
"""Entities kept per name, most probable first; names.parquet keeps all."""

_NAMES_PER_BUCKET = 8
LENGTH_BITS = 16
_LISTED = np.uint32(1 << 31)
"""Set in `value` if a name has several entities."""
_LOWER = np.uint32(1 << 30)
"""Set beside the row of an entity whose name is written without capitals: turkey, the bird."""
_SECOND_BITS = 8
_LAST_OF_SECOND = 1 << _SECOND_BITS
_ALL_LONGER = (1 << LENGTH_BITS) - _LAST_OF_SECOND
_PARTITIONS = 64
_PARTITION_BITS = 6


class HashCollision(Exception):
    """Two different names have the same hash under this seed."""


class Arrays(NamedTuple):
    """The arrays as compiled functions take them; see `NameIndex`."""

    directory: np.ndarray
    rest: np.ndarray
    value: np.ndarray
    first: np.ndarray
    second: np.ndarray
    list_start: np.ndarray
    list_rows: np.ndarray
    list_weights: np.ndarray
    bucket_bits: int
    first_bits: int
    second_bits: int


@dataclass(frozen=True)
class NameIndex:
    """The arrays of the index; `key` below is a position in `rest`."""

    directory: np.ndarray
    """uint32: where the keys begin whose top bits are i; one more item than buckets."""
    rest: np.ndarray
    """uint32, sorted within a bucket: the 32 bits of the hash that follow those of the bucket."""
    value: np.ndarray
    """uint32: the only entity of a name, or _LISTED and the number of its list."""
    first: np.ndarray
    """uint16 by the top bits of a first token's hash: bit n-1 is set if a name of n tokens may
    begin so; the last bit stands for all longer names."""
    second: np.ndarray
    """uint8 by the top bits of the hash of the first two tokens: bit n-2, likewise."""
    list_start: np.ndarray
    """uint32: list l has the items list_start[l]:list_start[l+1] of the two arrays below."""
    list_rows: np.ndarray
    """uint32 row of entities.parquet, perhaps with _LOWER, most probable candidate first."""
    list_weights: np.ndarray
    """float32 p(entity | name), not normalised."""

    def __len__(self) -> int:
        return len(self.rest)

    @classmethod
    def open(cls, folder: Path) -> "NameIndex":
        """Maps the arrays into memory; nothing is read yet."""
        return cls(
            **{array.name: open_array(folder / f"{array.name}.npy") for array in fields(cls)}
        )

    @property
    def arrays(self) -> Arrays:
        """What compiled functions need."""
        arrays = {array.name: getattr(self, array.name) for array in fields(self)}
        sizes = len(self.directory) - 1, len(self.first), len(self.second)
        return Arrays(*arrays.values(), *(size.bit_length() - 1 for size in sizes))

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the key of every hash, or -1."""
        return _find_all(hashes, self.arrays)

    def candidates(self, keys: np.ndarray, max_candidates: int = MAX_CANDIDATES) -> "Candidates":
        """Returns the entities of names, name after name, most probable first; key -1 has none."""
        return Candidates(*_candidates(keys, self.arrays, max_candidates))


@dataclass(frozen=True)
class Candidates:
    """Arrays of one item per candidate."""

    item: np.ndarray
    """Position among the keys that were asked for."""
    rank: np.ndarray
    """0 = most probable."""
    entity: np.ndarray
    """Row of entities.parquet."""
    prior: np.ndarray
    """float64 p(entity | name); sums to 1 over a name's candidates."""
    is_lower: np.ndarray
    """The entity's name is written without capitals."""

    def __len__(self) -> int:
        return len(self.item)


def hash_text(hasher: Hasher, text: str) -> np.ndarray:
    """Returns the hash of one string, as an array of one."""
    buffer = np.frombuffer(text.encode(), np.uint8)
    return hasher.spans(buffer, np.array([0]), np.array([len(buffer)]))


@compiled
def find(hash_, arrays):
    """Returns the key of one hash, or -1; compiled."""
    bits = np.uint64(arrays.bucket_bits)
    bucket = np.int64(hash_ >> (np.uint64(64) - bits))
    wanted = np.uint32((hash_ << bits) >> np.uint64(32))
    end = np.int64(arrays.directory[bucket + 1])
    for at in range(np.int64(arrays.directory[bucket]), end):
        if arrays.rest[at] >= wanted:
            return at if arrays.rest[at] == wanted else -1
    return -1


@compiled
def lengths_after(first_hash, arrays):
    """Returns a bitmask, see `NameIndex.first`, for the hash of one token; compiled."""
    return np.int64(arrays.first[np.int64(first_hash >> np.uint64(64 - arrays.first_bits))])


@compiled
def lengths_after_two(pair_hash, arrays):
    """Returns a bitmask like that of `lengths_after` for the hash of two tokens; compiled."""
    mask = np.int64(arrays.second[np.int64(pair_hash >> np.uint64(64 - arrays.second_bits))]) << 1
    # The last bit stands for all longer names, up to the last bit of the other mask.
    return mask | _ALL_LONGER if mask & _LAST_OF_SECOND else mask


@compiled
def _find_all(hashes, arrays):
    keys = np.empty(len(hashes), np.int64)
    for i in range(len(hashes)):
        keys[i] = find(hashes[i], arrays)
    return keys


@compiled
def _candidates(keys, arrays, most):
    size = 0
    for key in keys:
        size += _list_of(key, arrays, most)[1]
    item, rank = np.empty(size, np.int64), np.empty(size, np.int64)
    entity, prior = np.empty(size, np.int64), np.empty(size, np.float64)
    is_lower = np.empty(size, np.bool_)
    at = 0
    for i in range(len(keys)):
        begin, count = _list_of(keys[i], arrays, most)
        total = 0.0
        for k in range(count):
            row, weight = arrays.value[keys[i]], np.float32(1)
            if begin >= 0:
                row, weight = arrays.list_rows[begin + k], arrays.list_weights[begin + k]
            item[at + k], rank[at + k], prior[at + k] = i, k, weight
            entity[at + k], is_lower[at + k] = row & (_LOWER - 1), row & _LOWER != 0
            total += weight
        for k in range(at, at + count):
            prior[k] /= total
        at += count
    return item, rank, entity, prior, is_lower


@compiled
def _list_of(key, arrays, most):
    """Returns where the candidates of a name begin, -1 if it has no list, and their number."""
    if key < 0:
        return np.int64(-1), np.int64(0)
    value = arrays.value[key]
    if not value & _LISTED:
        return np.int64(-1), np.int64(1)
    begin = np.int64(arrays.list_start[value ^ _LISTED])
    return begin, min(most, np.int64(arrays.list_start[(value ^ _LISTED) + 1]) - begin)


@dataclass(frozen=True)
class IndexSummary:
    """What an index holds."""

    num_keys: int
    max_tokens: int


class IndexBuilder:
    """Builds an index from sorted names of any number, in little memory.

    Names are spread over files by the top bits of their hashes; each file is then sorted by itself.
    """

    def __init__(self, folder: Path, hasher: Hasher, *, num_names: int):
        """Prepares to write the index.

        Args:
            folder: where the arrays will lie.
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
        """Adds rows of names.parquet in its order: those of one name consecutive, best first."""
        names = names.select(["key", "raw", "entity", "weight"])
        if self._open is not None:
            names = pa.concat_tables([self._open, names])
        if not len(names):
            return
        names = names.combine_chunks()
        keys = names["key"].chunk(0)
        new = np.ones(len(keys), bool)
        new[1:] = pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)
        starts = np.flatnonzero(new)
        # The last name may go on in the next call.
        last = int(starts[-1])
        # A copy: a slice would keep the whole batch in memory.
        self._open = names.take(pa.array(np.arange(last, len(names))))
        if last:
            self._add(names, starts)

    def _add(self, names: pa.Table, starts: np.ndarray) -> None:
        """Adds whole names; name i has the rows starts[i]:starts[i + 1]."""
        keys = one_chunk(names["key"].take(pa.array(starts[:-1])))
        hashes = self._hasher.strings(keys)
        rows = names["entity"].to_numpy().astype(np.uint32)
        rows[_is_lower(names["raw"])] |= _LOWER
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
        bits = np.uint8(1) << (np.minimum(count - 1, _SECOND_BITS) - 1).astype(np.uint8)
        np.bitwise_or.at(self._second, at, bits)

    def _values(self, starts: np.ndarray, rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Returns `NameIndex.value` of names, and writes the lists of those that need one."""
        counts = np.minimum(np.diff(starts), MAX_CANDIDATES)
        begin = starts[:-1]
        listed = np.flatnonzero(counts > 1)
        value = rows[begin]
        value[listed] = _LISTED | (self._num_lists + np.arange(len(listed))).astype(np.uint32)
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
            HashCollision: two names have equal hashes; try another seed.
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
                # What `rest` and the bucket keep of a hash must tell names apart.
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


_RECORD = np.dtype([("hash", np.uint64), ("value", np.uint32)])


def _is_lower(raw: pa.ChunkedArray) -> np.ndarray:
    """Says which names have letters with case, but no capital."""
    without = pc.equal(raw, pc.utf8_lower(raw))
    with_case = pc.not_equal(raw, pc.utf8_upper(raw))
    return pc.and_(without, with_case).to_numpy()


def _power_of_two(at_least: int) -> int:
    return 1 << max(3, (at_least - 1).bit_length())


def _shift(size: int) -> np.uint64:
    """Returns how far to shift a hash to the right to address `size` items by its top bits."""
    return np.uint64(64 - (size - 1).bit_length())
