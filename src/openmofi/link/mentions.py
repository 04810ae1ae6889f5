"""Caption -> mentions: which spans of a caption are names in the knowledge base.

In: tokens of a batch of captions. Out: non-overlapping spans, leftmost first and as long as
possible: "New York City" hides "New York". All n-grams of the batch are hashed and looked up
together; most are dropped by the first of the index's gates.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.config import LinkSettings
from openmofi.kb.hashing import Hasher, mix
from openmofi.kb.index import NameIndex, length_bit
from openmofi.kb.text import Tokens
from openmofi.link.stopwords import STOP_WORDS

# Scripts that make every character a token have about this many of them in a word.
_CHARACTERS_PER_WORD = 3
_DIGITS = (ord("0"), ord("9"))


@dataclass(frozen=True)
class Mentions:
    """Spans of captions; arrays of one item per mention, in order of caption and start."""

    row: np.ndarray
    """Index of the caption in the batch."""
    start: np.ndarray
    """Code points of the raw caption."""
    end: np.ndarray
    key: np.ndarray
    """The name: a position in `NameIndex.hashes`."""

    def __len__(self) -> int:
        return len(self.row)


def stop_keys(index: NameIndex, hasher: Hasher) -> np.ndarray:
    """Returns the keys of the names that are single stop words, sorted."""
    keys = index.find(hasher.strings(pa.array(sorted(STOP_WORDS), pa.string())))
    return np.sort(keys[keys >= 0])


def find_mentions(
    tokens: Tokens, *, index: NameIndex, hasher: Hasher, stopped: np.ndarray, settings: LinkSettings
) -> Mentions:
    """Finds the names in a batch of captions.

    Args:
        tokens: the captions.
        index: the names.
        hasher: what hashed the names.
        stopped: keys that are no mentions, see `stop_keys`.
        settings: limits on the length of a mention.
    """
    first, last, key = _matches(tokens, index, hasher, settings.max_words)
    allowed = _is_allowed(tokens, first, last, key, stopped, settings.min_chars)
    first, last, key = first[allowed], last[allowed], key[allowed]
    chosen = leftmost_longest(first, last + 1)
    first, last, key = first[chosen], last[chosen], key[chosen]
    return Mentions(
        row=tokens.row[first],
        start=tokens.char_start[first],
        end=tokens.char_end[last],
        key=key,
    )


def _matches(
    tokens: Tokens, index: NameIndex, hasher: Hasher, max_words: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns first token, last token and key of every n-gram that is a name."""
    sums = hasher.prefix_sums(tokens.buffer)
    at_start, at_end = sums[tokens.start], sums[tokens.end]
    inverse = hasher.inverse_powers(tokens.start)
    lengths = index.lengths(mix((at_end - at_start) * inverse))
    room = _room(tokens, max_words)

    found = []
    alive = np.arange(len(tokens))
    for n in range(1, max_words * _CHARACTERS_PER_WORD + 1):
        alive = alive[room[alive] >= n]
        if not len(alive):
            break
        bit = np.uint16(1 << int(length_bit(np.array(n))))
        first = alive[lengths[alive] & bit != 0]
        hashes = mix((at_end[first + (n - 1)] - at_start[first]) * inverse[first])
        keys = index.find(hashes)
        known = keys >= 0
        found.append((first[known], first[known] + (n - 1), keys[known]))
    if not found:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    firsts, lasts, keys = (np.concatenate(part) for part in zip(*found, strict=True))
    # Longest first among equal starts.
    order = np.lexsort((-lasts, firsts))
    return firsts[order], lasts[order], keys[order]


def _room(tokens: Tokens, max_words: int) -> np.ndarray:
    """Returns how many tokens a name that starts here may have."""
    barriers = np.append(np.flatnonzero(tokens.barrier), len(tokens))
    to_barrier = np.repeat(barriers[1:], np.diff(barriers)) - np.arange(len(tokens))
    limit = np.where(tokens.is_character, max_words * _CHARACTERS_PER_WORD, max_words)
    return np.minimum(to_barrier, limit)


def _is_allowed(
    tokens: Tokens,
    first: np.ndarray,
    last: np.ndarray,
    key: np.ndarray,
    stopped: np.ndarray,
    min_chars: int,
) -> np.ndarray:
    """Refuses stop words, names that are too short, and bare numbers, which are mostly dates."""
    long_enough = tokens.char_end[last] - tokens.char_start[first] >= min_chars
    low, high = _DIGITS
    initial, final = tokens.buffer[tokens.start[first]], tokens.buffer[tokens.end[last] - 1]
    is_number = (first == last) & (low <= initial) & (initial <= high)
    is_number &= (low <= final) & (final <= high)
    return long_enough & ~is_number & ~np.isin(key, stopped)


def leftmost_longest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns the indices of the spans that a scan from left to right would take.

    Spans must be sorted by start, and by falling end among equal starts. Every round takes the
    spans that no earlier one reaches, and drops what those overlap; chains of overlaps are short.
    """
    left = np.arange(len(start))
    while len(left):
        reach = np.maximum.accumulate(end[left])
        free = np.ones(len(left), bool)
        free[1:] = start[left[1:]] >= reach[:-1]
        if free.all():
            break
        head = np.maximum.accumulate(np.where(free, np.arange(len(left)), 0))
        left = left[free | (start[left] >= end[left[head]])]
    return left
