"""Name -> entities, as flat arrays that are memory-mapped and shared by all processes.

In: the hash of every canonical name with its candidate entities. Out: a folder of .npy files that
opens in milliseconds whatever its size. A lookup of millions of n-grams at once passes three gates,
each cheaper than the next: `first` (does any name of n tokens begin with this token?), `filter`
(a bitmap of hashes; 1 in 9 absent n-grams pass), and the sorted hashes behind a radix directory.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from openmofi.kb.hashing import Hasher

# Bits of the bitmap per name; 8 makes one byte a name.
_FILTER_BITS_PER_NAME = 8
_LENGTH_BITS = 16


@dataclass(frozen=True)
class NameIndex:
    """The arrays of the index; `key` below is a position in `hashes`."""

    hashes: np.ndarray
    """uint64, sorted: one per distinct canonical name."""
    directory: np.ndarray
    """int32: where the hashes begin whose top bits are i; one more item than buckets."""
    filter: np.ndarray
    """uint8 bitmap, addressed by the top bits of a hash."""
    first: np.ndarray
    """uint16 by the top bits of a first token's hash: bit n-1 is set if a name of n tokens may
    begin so; the last bit stands for all longer names."""
    offsets: np.ndarray
    """int32: candidates of key k are offsets[k]:offsets[k+1] of the two arrays below."""
    rows: np.ndarray
    """int32 row of entities.parquet, most probable candidate first."""
    weights: np.ndarray
    """float32 p0(entity | name), not normalised."""

    def save(self, folder: Path) -> None:
        """Writes one .npy file per array."""
        folder.mkdir(parents=True, exist_ok=True)
        for array in fields(self):
            np.save(folder / f"{array.name}.npy", getattr(self, array.name))

    @classmethod
    def open(cls, folder: Path) -> "NameIndex":
        """Maps the arrays into memory; nothing is read yet."""
        names = [array.name for array in fields(cls)]
        return cls(**{name: open_array(folder / f"{name}.npy") for name in names})

    def lengths(self, token_hashes: np.ndarray) -> np.ndarray:
        """Returns for first tokens the bitmask of lengths of names that may begin with them."""
        return self.first[token_hashes >> _shift(len(self.first))]

    def may_contain(self, hashes: np.ndarray) -> np.ndarray:
        """Says which hashes pass the bitmap; all names do."""
        bit = hashes >> _shift(len(self.filter) * 8)
        byte = self.filter[(bit >> np.uint64(3)).view(np.int64)]
        return (byte >> (bit & np.uint64(7)).astype(np.uint8)) & 1 != 0

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """Returns the key of every hash, or -1."""
        keys = np.full(len(hashes), -1, np.int64)
        left = np.flatnonzero(self.may_contain(hashes))
        bucket = hashes[left] >> _shift(len(self.directory) - 1)
        at, end = self.directory[bucket], self.directory[bucket + np.uint64(1)]
        while len(left):
            inside = at < end
            left, at, end = left[inside], at[inside], end[inside]
            here = self.hashes[at]
            wanted = hashes[left]
            keys[left[here == wanted]] = at[here == wanted]
            ahead = here < wanted
            left, at, end = left[ahead], at[ahead] + 1, end[ahead]
        return keys


def open_array(path: Path) -> np.ndarray:
    """Maps a .npy file; empty arrays cannot be mapped and are read."""
    try:
        # A plain array over the mapping: np.memmap's own indexing is several times slower.
        return np.asarray(np.load(path, mmap_mode="r"))
    except ValueError:
        return np.load(path)


def length_bit(num_tokens: np.ndarray) -> np.ndarray:
    """Returns the bit of `NameIndex.first` that stands for names of this many tokens."""
    return np.minimum(num_tokens, _LENGTH_BITS) - 1


def build_index(
    hashes: np.ndarray,
    rows: np.ndarray,
    weights: np.ndarray,
    *,
    first_hashes: np.ndarray,
    num_tokens: np.ndarray,
) -> NameIndex:
    """Builds the index from one item per (name, entity).

    Args:
        hashes: uint64 hash of the canonical name.
        rows: the entity.
        weights: p0(entity | name).
        first_hashes: hash of the name's first token.
        num_tokens: tokens of the name.
    """
    order = np.lexsort((rows, -weights, hashes))
    unique, starts = np.unique(hashes[order], return_index=True)
    buckets = _power_of_two(len(unique))
    edges = np.searchsorted(unique >> _shift(buckets), np.arange(buckets + 1, dtype=np.uint64))
    return NameIndex(
        hashes=unique,
        directory=edges.astype(np.int32),
        filter=_bitmap(unique),
        first=_first_lengths(first_hashes, num_tokens),
        offsets=np.append(starts, len(hashes)).astype(np.int32),
        rows=rows[order].astype(np.int32),
        weights=weights[order].astype(np.float32),
    )


def hash_text(hasher: Hasher, text: str) -> np.ndarray:
    """Returns the hash of one string, as an array of one."""
    buffer = np.frombuffer(text.encode(), np.uint8)
    return hasher.spans(buffer, np.array([0]), np.array([len(buffer)]))


def _bitmap(hashes: np.ndarray) -> np.ndarray:
    bits = _power_of_two(len(hashes) * _FILTER_BITS_PER_NAME)
    marks = np.zeros(bits, np.uint8)
    marks[hashes >> _shift(bits)] = 1
    return np.packbits(marks, bitorder="little")


def _first_lengths(first_hashes: np.ndarray, num_tokens: np.ndarray) -> np.ndarray:
    size = _power_of_two(4 * len(np.unique(first_hashes)))
    table = np.zeros(size, np.uint16)
    bits = (1 << length_bit(num_tokens)).astype(np.uint16)
    np.bitwise_or.at(table, first_hashes >> _shift(size), bits)
    return table


def _power_of_two(at_least: int) -> int:
    return 1 << max(3, (at_least - 1).bit_length())


def _shift(size: int) -> np.uint64:
    """Returns how far to shift a hash to the right to address `size` items by its top bits."""
    return np.uint64(64 - (size - 1).bit_length())
