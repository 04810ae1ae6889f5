"""Caption -> mentions: which spans of a caption are names in the knowledge base.

In: tokens of a batch of captions. Out: spans, in order. For labelling, spans do not overlap; the
leftmost and longest wins: "New York City" hides "New York". For counting, all names are found.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from openmofi.arrays.compiled import compiled
from openmofi.arrays.hashing import Hasher
from openmofi.arrays.splitmix64 import finalise_one
from openmofi.arrays.strings import string_buffers
from openmofi.config import LinkSettings
from openmofi.kb.index import (
    LENGTH_BITS,
    NameIndex,
    find,
    lengths_after,
    lengths_after_two,
)
from openmofi.kb.scan import CASELESS, LOWERCASE, ONE_CAPITAL, UPPERCASE
from openmofi.kb.text import Tokens

# In scripts of which every character is a token, a word has about so many of them.
_CHARACTERS_PER_WORD = 3


@dataclass(frozen=True)
class Mentions:
    """Spans of captions; arrays with one item per mention, in order of caption and start."""

    row: np.ndarray
    """Index of the caption in the batch."""
    start: np.ndarray
    """Code points of the raw caption."""
    end: np.ndarray
    raw_start: np.ndarray
    """Where the mention's text begins in `raw`."""
    raw_end: np.ndarray
    raw: np.ndarray
    """The bytes of the texts; not one item per mention."""
    key: np.ndarray
    """The name: a position in the index."""
    written: np.ndarray
    """1: with a capital that its place does not require; -1: without a capital, by someone who uses
    them; 0: neither, so it tells nothing."""
    is_small: np.ndarray
    """Whether it has no capital, whoever wrote it."""
    capitals: np.ndarray
    """2: in capitals, in a caption that also has small letters; 1: in capitals; 0: otherwise."""
    num_tokens: np.ndarray
    accented: np.ndarray
    """Whether it has an accent, or a letter such as ø."""

    def __len__(self) -> int:
        return len(self.row)

    def only(self, kept: np.ndarray) -> "Mentions":
        """Returns some of the mentions."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return Mentions(**{n: a if n == "raw" else a[kept] for n, a in arrays.items()})


def keys_of(words: Iterable[str], index: NameIndex, hasher: Hasher) -> np.ndarray:
    """Returns the keys of the names among words in canonical form, sorted."""
    keys = index.find(hasher.strings(pa.array(sorted(words), pa.string())))
    return np.sort(keys[keys >= 0])


def contains(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Returns which wanted keys are among others, which are sorted."""
    if not len(keys):
        return np.zeros(len(wanted), bool)
    return keys[np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)] == wanted


def find_mentions(
    tokens: Tokens,
    raw: np.ndarray,
    *,
    index: NameIndex,
    hasher: Hasher,
    stopped: np.ndarray,
    settings: LinkSettings,
    overlapping: bool = False,
) -> Mentions:
    """Finds the names in a batch of captions.

    Args:
        tokens: tokens of the captions.
        raw: the bytes to which `tokens.raw_start` refers.
        index: the names.
        hasher: the hasher of the names.
        stopped: keys that are not mentions unless written in capitals, see `keys_of`.
        settings: limits on the length of a mention.
        overlapping: whether to find all names, not only the leftmost longest.
    """
    longest = 0  # canonical bytes of a caption
    if len(tokens):
        ends = np.append(tokens.end, 0)[tokens.row_start[1:] - 1]
        starts = np.append(tokens.start, 0)[tokens.row_start[:-1]]
        longest = int((ends - starts).max())
    row, first, last, key = _find_mentions(
        tokens.buffer,
        tokens.start,
        tokens.end,
        tokens.char_start,
        tokens.char_end,
        tokens.inside,
        tokens.unfinished,
        tokens.is_character,
        tokens.case,
        tokens.row_start,
        hasher.powers(longest),
        index.arrays,
        stopped,
        (settings.max_words, settings.min_chars, overlapping),
    )
    return Mentions(
        row=row,
        start=tokens.char_start[first],
        end=tokens.char_end[last],
        raw_start=tokens.raw_start[first],
        raw_end=tokens.raw_end[last],
        raw=raw,
        key=key,
        **_writing(tokens, row, first, last),
    )


def given_mentions(
    spans: tuple[np.ndarray, np.ndarray, np.ndarray],
    tokens: Tokens,
    texts: pa.LargeStringArray,
    keys: np.ndarray,
) -> Mentions:
    """Returns given spans as mentions.

    Args:
        spans: caption, start and end of each, in code points; in order of caption and start.
        tokens: tokens of the captions.
        texts: texts of the spans.
        keys: keys of the texts, see `KnowledgeBase.keys`; all are names.
    """
    row, start, end = spans
    offsets, raw = string_buffers(texts)
    place = tokens.row.astype(np.int64) << 32
    # The tokens that share a character with the span; a name has at least one.
    first = np.searchsorted(place | tokens.char_end, (row << 32) | start, side="right")
    last = np.searchsorted(place | tokens.char_start, (row << 32) | end) - 1
    return Mentions(
        row=row,
        start=start,
        end=end,
        raw_start=offsets[:-1],
        raw_end=offsets[1:],
        raw=raw,
        key=keys,
        **_writing(tokens, row, first, last),
    )


def _writing(
    tokens: Tokens, row: np.ndarray, first: np.ndarray, last: np.ndarray
) -> dict[str, np.ndarray]:
    places = tokens.barrier, tokens.row_start
    written, is_small, capitals = _how_written(tokens.case, *places, row, first, last)
    accents = np.append(0, np.cumsum(tokens.accented))
    return {
        "written": written,
        "is_small": is_small,
        "capitals": capitals,
        "num_tokens": last - first + 1,
        "accented": accents[last + 1] > accents[first],
    }


@compiled
def _find_mentions(
    buffer, start, end, char_start, char_end, inside, unfinished, is_character, case, row_start,
    powers, arrays, stopped, limits,
):  # fmt: skip
    """Returns row, first token, last token and key of every mention."""
    max_words, min_chars, overlapping = limits
    sums = np.empty(len(powers[0]) + 1, np.uint64)
    lengths = np.empty(64, np.int64)
    found = np.empty((len(start) + 16, 4), np.int64)
    size = 0
    for row in range(len(row_start) - 1):
        low, high = row_start[row], row_start[row + 1]
        if low == high:
            continue
        if high - low > len(lengths):
            lengths = np.empty(2 * (high - low), np.int64)
        origin = start[low]
        _sum(buffer, origin, end[high - 1], powers[0], sums)
        _possible_lengths(low, high, start, end, sums, powers[1], arrays, lengths)
        token = low
        while token < high:
            longest = max_words
            if is_character[token]:
                longest *= _CHARACTERS_PER_WORD
            step = 1
            room = 0 if inside[token] else _room(token, high, longest, lengths[token - low])
            for n in range(room, 0, -1):
                if not (lengths[token - low] >> min(n - 1, LENGTH_BITS - 1)) & 1:
                    continue
                last = token + n - 1
                key = find(_hash(start[token], end[last], origin, sums, powers[1]), arrays)
                if key < 0 or unfinished[last] or char_end[last] - char_start[token] < min_chars:
                    continue
                if n == 1 and (
                    _is_number(buffer, start[token], end[token])
                    or (case[token] != UPPERCASE and _contains(stopped, key))
                ):
                    continue
                if size == len(found):
                    found = np.concatenate((found, np.empty_like(found)))
                found[size, 0], found[size, 1] = row, token
                found[size, 2], found[size, 3] = last, key
                size += 1
                if not overlapping:
                    step = n
                    break
            token += step
    return found[:size, 0], found[:size, 1], found[:size, 2], found[:size, 3]


@compiled
def _possible_lengths(low, high, start, end, sums, backward, arrays, lengths):
    """Writes the possible lengths of names that begin with each token of a caption.

    Most loads miss the caches; in separate loops, they do not wait for each other.
    """
    origin = start[low]
    for token in range(low, high):
        hash_ = _hash(start[token], end[token], origin, sums, backward)
        lengths[token - low] = lengths_after(hash_, arrays)
    for token in range(low, high - 1):
        if lengths[token - low] > 1:
            hash_ = _hash(start[token], end[token + 1], origin, sums, backward)
            lengths[token - low] &= lengths_after_two(hash_, arrays) | 1
    lengths[high - 1 - low] &= 1


@compiled
def _hash(begin, stop, origin, sums, backward):
    """Returns the hash of a span of the buffer, see hashing.py."""
    return finalise_one((sums[stop - origin] - sums[begin - origin]) * backward[begin - origin])


@compiled
def _sum(buffer, begin, stop, forward, sums):
    """Writes the prefix sums of hashing.py for one caption."""
    total = np.uint64(0)
    sums[0] = total
    for k in range(stop - begin):
        total += np.uint64(buffer[begin + k]) * forward[k]
        sums[k + 1] = total


@compiled
def _room(token, high, longest, lengths):
    """Returns the largest number of tokens of a name that begins here."""
    known = 0
    while lengths >> known:
        known += 1
    if known < LENGTH_BITS:  # else the longest is unknown
        longest = min(longest, known)
    return min(longest, high - token) if known else 0


@compiled
def _is_number(buffer, begin, stop):
    """Returns whether a token begins and ends with a digit, as dates mostly do."""
    return 48 <= buffer[begin] <= 57 and 48 <= buffer[stop - 1] <= 57


@compiled
def _contains(items, wanted):
    at = np.searchsorted(items, wanted)
    return at < len(items) and items[at] == wanted


@compiled
def _how_written(case, barrier, row_start, row, first, last):
    """Returns `written`, `is_small` and `capitals` of `Mentions`."""
    written, capitals = np.zeros(len(row), np.int8), np.zeros(len(row), np.int8)
    is_small = np.zeros(len(row), np.bool_)
    counted, small, large = -1, 0, 0
    for i in range(len(row)):
        if row[i] != counted:  # count the caption's words that are written small and large
            counted, small, large = row[i], 0, 0
            for k in range(row_start[counted], row_start[counted + 1]):
                small += case[k] == LOWERCASE
                large += case[k] > LOWERCASE
        inside_small = inside_large = inside_upper = 0
        for k in range(first[i], last[i] + 1):
            inside_small += case[k] == LOWERCASE
            inside_large += case[k] > LOWERCASE
            inside_upper += case[k] == UPPERCASE
        outside_small, outside_large = small - inside_small, large - inside_large
        if inside_large and not barrier[first[i]] and outside_small > outside_large:
            written[i] = 1
        elif inside_small and not inside_large and outside_large:
            written[i] = -1
        is_small[i] = inside_small and not inside_large
        if inside_upper and inside_upper == inside_large and not inside_small:
            low, high = row_start[row[i]], row_start[row[i] + 1]
            has_small = _has_small_letters(case, low, high)
            capitals[i] = 2 if has_small else 1
    return written, is_small, capitals


@compiled
def _has_small_letters(case, low, high):
    """Returns whether any token has a small letter."""
    for k in range(low, high):
        if case[k] != CASELESS and case[k] != UPPERCASE and case[k] != ONE_CAPITAL:
            return True
    return False
