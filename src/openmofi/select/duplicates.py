"""Finds images that repeat an earlier one, by their bytes or by their perceptual hashes.

In: hashes in order of preference, best first. Out: for each, the index of the best kept hash that
it repeats, or -1. The rule is greedy: an image is kept unless it repeats one that is already kept.

Two 64-bit hashes that differ in at most b bits, cut into b + r bands, agree in at least r of them
(the pigeonhole principle; multi-index hashing, Norouzi, Punjani and Fleet 2012). So each hash is
filed once for every choice of r bands, and looked up in as many places. The answer is exact for
every r; the cheapest r is found from a sample of the hashes, which shows how crowded the places
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from openmofi.arrays.compiled import compiled

_SAMPLE = 16_384
MAX_BYTES = 2_000_000_000
"""Bytes of the places at most, unless the fewest masks need more."""
_LOOKUP_COST = 30.0
"""Cost of looking up one place, in comparisons; measured with benchmarks/select_scale.py."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # Knuth's multiplicative hashing: 2^64 / golden ratio
_GROUP_SPREAD = np.uint64(0xBF58476D1CE4E5B9)  # any other odd number with mixed bits


def first_equal(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Returns for each 128-bit key the index of the first equal key.

    Args:
        high: uint64, the upper halves.
        low: uint64, the lower halves.
    """
    slots = 1 << max(4, (2 * len(high)).bit_length())
    return _first_equal(high, low, np.full(slots, -1, np.int64))


def near_duplicates(
    hashes: np.ndarray,
    bits: int,
    groups: np.ndarray | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> np.ndarray:
    """Returns for each hash the first kept one within `bits`, or -1 if it is kept itself.

    Args:
        hashes: uint64, best first.
        bits: largest Hamming distance, 0 to 7.
        groups: group of each hash, from 0; only hashes of the same group can repeat each other. By
            default all are in one group.
        max_bytes: memory that the search may take, unless its thriftiest way needs more.
    """
    group = np.zeros(len(hashes), np.uint64) if groups is None else groups.astype(np.uint64)
    first = first_equal(hashes, group)
    distinct = np.flatnonzero(first == np.arange(len(hashes)))
    found = _search(hashes[distinct], group[distinct], bits, known=0, max_bytes=max_bytes)
    repeats = np.full(len(hashes), -1, np.int64)
    repeats[distinct] = np.where(found >= 0, distinct[found], -1)
    equal = np.where(first < np.arange(len(first)), first, -1)
    return np.where(repeats[first] >= 0, repeats[first], equal)


def near_known(hashes: np.ndarray, known: np.ndarray, bits: int) -> np.ndarray:
    """Returns for each hash the index of the first known hash within `bits`, or -1."""
    if not len(known):
        return np.full(len(hashes), -1, np.int64)
    both = np.concatenate([known, hashes])
    found = _search(both, np.zeros_like(both), bits, known=len(known), max_bytes=MAX_BYTES)
    return found[len(known) :]


def distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the number of bits in which hashes differ."""
    return np.bitwise_count(one ^ other)


@dataclass(frozen=True)
class Scheme:
    """How hashes are filed: once per mask, by its bits."""

    masks: np.ndarray
    slots: int
    """Places per mask, a power of 2."""

    def num_bytes(self, num_hashes: int) -> int:
        """Returns the memory for the filed hashes and for the begin and end of each place."""
        return len(self.masks) * (8 * self.slots + 12 * num_hashes)


def scheme_for(
    hashes: np.ndarray, bits: int, *, num_groups: int = 1, max_bytes: int = MAX_BYTES
) -> Scheme:
    """Returns the cheapest scheme for these hashes, judged by a sample of them."""
    options = []
    for agreeing in (1, 2, 3):
        bands = bits + agreeing  # neighbouring bits go to different bands
        band = [sum(1 << bit for bit in range(i, 64, bands)) for i in range(bands)]
        masks = np.array([sum(chosen) for chosen in combinations(band, agreeing)], np.uint64)
        narrowest = min(int(mask).bit_count() for mask in masks)
        widest = narrowest + num_groups.bit_length()
        slots = 1 << min(max(8, len(hashes).bit_length() - 1), widest)
        crowd = sum(_crowding(hashes, mask) for mask in masks)
        cost = _LOOKUP_COST * len(masks) + crowd * len(hashes) / 2
        options.append((cost, Scheme(masks, slots)))
    small = [option for option in options if option[1].num_bytes(len(hashes)) <= max_bytes]
    return min(small or options[:1], key=lambda option: option[0])[1]


def _crowding(hashes: np.ndarray, mask: np.uint64) -> float:
    """Returns the share of pairs of hashes that the mask files in one place."""
    sample = hashes[:: max(len(hashes) // _SAMPLE, 1)][:_SAMPLE]
    _, counts = np.unique(sample & mask, return_counts=True)
    pairs = len(sample) * (len(sample) - 1)
    return float((counts * (counts - 1)).sum()) / max(pairs, 1)


def _search(
    hashes: np.ndarray, group: np.ndarray, bits: int, *, known: int, max_bytes: int
) -> np.ndarray:
    """Returns for each hash the first filed one of its group within `bits` before it, or -1.

    With known > 0, only the first `known` hashes are filed, else all that repeat no other.
    """
    filed = hashes[:known] if known else hashes
    found = np.full(len(hashes), -1, np.int64)
    if not len(filed):
        return found
    num_groups = len(np.unique(group))
    scheme = scheme_for(filed, bits, num_groups=num_groups, max_bytes=max_bytes)
    shift = np.uint64(64 - scheme.slots.bit_length() + 1)
    rooms = _empty_rooms(filed, group, scheme.masks, shift, scheme.slots)
    items = np.empty((len(scheme.masks), len(filed)), np.uint64)
    numbers = np.empty(items.shape, np.uint32)
    _greedy(hashes, group, known, bits, scheme.masks, shift, rooms, items, numbers, found)
    return found


@intrinsic
def _num_ones(typing_context, word):
    """Counts the set bits of a word with the machine's own instruction."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@compiled
def _place(word, group, mask, shift):
    return np.int64((((word & mask) ^ (group * _GROUP_SPREAD)) * _SPREAD) >> shift)


@compiled
def _empty_rooms(filed, group, masks, shift, slots):
    """Returns [mask, place, (begin, end)]: the empty range of items reserved for each place."""
    rooms = np.zeros((len(masks), slots, 2), np.uint32)
    for t in range(len(masks)):
        for i in range(len(filed)):
            rooms[t, _place(filed[i], group[i], masks[t], shift), 0] += np.uint32(1)
        begin = np.uint32(0)
        for slot in range(slots):
            size = rooms[t, slot, 0]
            rooms[t, slot, 0] = rooms[t, slot, 1] = begin
            begin += size
    return rooms


@compiled
def _greedy(hashes, group, known, bits, masks, shift, rooms, items, numbers, found):
    """Notes which filed hash each one repeats, the first of several, and files the others."""
    for i in range(len(hashes)):
        word, owner = hashes[i], group[i]
        if i >= known:
            for t in range(len(masks)):
                slot = _place(word, owner, masks[t], shift)
                for j in range(rooms[t, slot, 0], rooms[t, slot, 1]):
                    if _num_ones(word ^ items[t, j]) <= bits:  # pyrefly: ignore
                        at = np.int64(numbers[t, j])
                        if group[at] == owner:  # the first one in this place, others have others
                            if found[i] < 0 or at < found[i]:
                                found[i] = at
                            break
        if i < known or (known == 0 and found[i] < 0):
            for t in range(len(masks)):
                slot = _place(word, owner, masks[t], shift)
                items[t, rooms[t, slot, 1]] = word
                numbers[t, rooms[t, slot, 1]] = np.uint32(i)
                rooms[t, slot, 1] += np.uint32(1)


@compiled
def _first_equal(high, low, table):
    """Fills an open-addressed hash table in order; returns for each key the first equal one."""
    first = np.empty(len(high), np.int64)
    last = np.uint64(len(table) - 1)
    for i in range(len(high)):
        mixed = (high[i] ^ (low[i] * _SPREAD)) * _SPREAD
        slot = (mixed ^ (mixed >> np.uint64(29))) & last
        while True:
            at = table[slot]
            if at < 0:
                table[slot] = i
                first[i] = i
                break
            if high[at] == high[i] and low[at] == low[i]:
                first[i] = at
                break
            slot = (slot + np.uint64(1)) & last
    return first
