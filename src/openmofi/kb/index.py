"""Name -> entities, as flat arrays that are memory-mapped and shared by all processes.

In: canonical names with their candidate entities. Out: a folder of .npy files that opens in
milliseconds whatever its size and takes about 10 bytes a name. `index_builder.py` writes them.

A name is found by its 64-bit hash. The top bits choose a bucket of `directory`, the next 32 are
compared with the few entries of that bucket in `rest`. Two names collide only if all these bits are
equal, which is checked when the index is built; an n-gram that is not a name is taken for one with
a probability of about 2e-9. Before all that, `first` says whether a name of n tokens can begin with
the first token, which rules out most n-grams.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from openmofi.arrays.compiled import compiled
from openmofi.arrays.hashing import Hasher
from openmofi.arrays.mapped import open_array
from openmofi.arrays.runs import run_lengths, run_starts
from openmofi.kb.spelling import ACCENTED, CAPITALS, CASE, LARGE, PLAIN, SMALL

MAX_CANDIDATES = 30
"""Entities kept per name, most probable first; names.parquet keeps all."""

LENGTH_BITS = 16
LISTED = np.uint32(1 << 31)
"""Set in `value` if a name has several entities."""
SPELLING_SHIFT = np.uint32(28)
"""The bits from here on, next to the row of an entity, are a position in `LISTED_SPELLINGS`."""
LISTED_SPELLINGS = np.array(
    [
        accents | case
        for accents in (PLAIN, ACCENTED, PLAIN | ACCENTED)
        for case in (LARGE, CAPITALS, SMALL, SMALL | LARGE)
    ],
    np.int8,
)
"""How a name is written. The last four, for which LISTED leaves no room, are only in lists: whether
the name of a single entity has accents makes no difference."""
_ROW = np.uint32((1 << 28) - 1)
SECOND_BITS = 8
_LAST_OF_SECOND = 1 << SECOND_BITS
_ALL_LONGER = (1 << LENGTH_BITS) - _LAST_OF_SECOND


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
    """uint32: where the keys with top bits i begin; has one more item than there are buckets."""
    rest: np.ndarray
    """uint32, sorted within a bucket: the 32 bits of the hash after those of the bucket."""
    value: np.ndarray
    """uint32: the only entity of a name, or LISTED and the number of its list."""
    first: np.ndarray
    """uint16 by the top bits of a first token's hash: bit n-1 is set if a name of n tokens can
    begin with it; the last bit stands for all longer names."""
    second: np.ndarray
    """uint8 by the top bits of the hash of the first two tokens: bit n-2, likewise."""
    list_start: np.ndarray
    """uint32: list l has the items list_start[l]:list_start[l+1] of the two arrays below."""
    list_rows: np.ndarray
    """uint32 row of entities.parquet, with four bits of spelling, most probable candidate first."""
    list_weights: np.ndarray
    """float32 p(entity | name), not normalised."""

    def __len__(self) -> int:
        return len(self.rest)

    @classmethod
    def open(cls, folder: Path) -> "NameIndex":
        """Maps the arrays into memory without reading them."""
        return cls(
            **{array.name: open_array(folder / f"{array.name}.npy") for array in fields(cls)}
        )

    @property
    def arrays(self) -> Arrays:
        """The arrays as compiled functions take them."""
        arrays = {array.name: getattr(self, array.name) for array in fields(self)}
        sizes = len(self.directory) - 1, len(self.first), len(self.second)
        return Arrays(*arrays.values(), *(size.bit_length() - 1 for size in sizes))

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the key of every hash, or -1."""
        return _find_all(hashes, self.arrays)

    def candidates(self, keys: np.ndarray, max_candidates: int = MAX_CANDIDATES) -> "Candidates":
        """Returns the entities of each name in turn, most probable first; key -1 has none."""
        return Candidates(*_candidates(keys, self.arrays, max_candidates))


@dataclass(frozen=True)
class Candidates:
    """Arrays with one item per candidate."""

    item: np.ndarray
    """Position of its name among the keys in question."""
    rank: np.ndarray
    """0 = most probable."""
    entity: np.ndarray
    """Row of entities.parquet."""
    prior: np.ndarray
    """float64 p(entity | name); sums to 1 over a name's candidates."""
    spelling: np.ndarray
    """How the entity's name is written, int8: bits of spelling.py; CAPITALS stands alone."""

    def __len__(self) -> int:
        return len(self.item)

    @property
    def is_lower(self) -> np.ndarray:
        """Whether the entity's name is written without capitals, at least sometimes."""
        return self.spelling & SMALL != 0

    @property
    def is_upper(self) -> np.ndarray:
        """Whether the entity's name is written in capitals only."""
        return self.spelling & CASE == CAPITALS

    def only(self, kept: np.ndarray) -> "Candidates":
        """Returns some of the candidates with new ranks and priors; `item` is unchanged."""
        item, prior = self.item[kept], self.prior[kept]
        begin = run_starts(item)
        sizes = run_lengths(begin, len(item))
        total = np.repeat(np.add.reduceat(prior, begin) if len(begin) else prior, sizes)
        return Candidates(
            item=item,
            rank=np.arange(len(item)) - np.repeat(begin, sizes),
            entity=self.entity[kept],
            prior=prior / total,
            spelling=self.spelling[kept],
        )


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
    """Returns a bitmask as `lengths_after` does, for the hash of two tokens; compiled."""
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
    spelling = np.empty(size, np.int8)
    at = 0
    for i in range(len(keys)):
        begin, count = _list_of(keys[i], arrays, most)
        total = 0.0
        for k in range(count):
            row, weight = arrays.value[keys[i]], np.float32(1)
            if begin >= 0:
                row, weight = arrays.list_rows[begin + k], arrays.list_weights[begin + k]
            item[at + k], rank[at + k], prior[at + k] = i, k, weight
            entity[at + k] = row & _ROW
            spelling[at + k] = LISTED_SPELLINGS[row >> SPELLING_SHIFT]
            total += weight
        for k in range(at, at + count):
            prior[k] /= total
        at += count
    return item, rank, entity, prior, spelling


@compiled
def _list_of(key, arrays, most):
    """Returns where the candidates of a name begin (-1 if it has no list), and their number."""
    if key < 0:
        return np.int64(-1), np.int64(0)
    value = arrays.value[key]
    if not value & LISTED:
        return np.int64(-1), np.int64(1)
    begin = np.int64(arrays.list_start[value ^ LISTED])
    return begin, min(most, np.int64(arrays.list_start[(value ^ LISTED) + 1]) - begin)
