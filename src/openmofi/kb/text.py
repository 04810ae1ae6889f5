"""The canonical form of names, used identically when a knowledge base is built and queried.

In: names or captions as they are written. Out: tokens, folded so that different spellings of one
name meet: "Dvořák's" -> "dvorak", "'s"; "North-Korea" -> "north", "korea"; "U.S.A." -> "u.s.a".

Rules (their reasons: names in captions are written without care, but AT&T is not "at" and "t"):
  * case and compatibility folding (NFKD), accents of Latin, Greek and Cyrillic stripped;
  * & between letters, + after a letter (C++), $ between letters (A$AP) and dots between single
    letters (U.S.A., J.R.R.) belong to the word;
  * 's is a token of its own, so that "Turkey's" contains "turkey";
  * every other sign separates words, and a name may span it: "Washington, D.C.";
  * a Han, Kana, Thai, Lao, Khmer or Burmese character is a token of its own;
  * names do not span barriers: ". " (not after an abbreviation), "|", " - " and line breaks.

All of it is array arithmetic over a batch of captions at once, a few nanoseconds a character.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.errors import InputError
from openmofi.kb.codepoints import (
    AMPERSAND,
    APOSTROPHE,
    ASCII_CLASSES,
    BAR,
    CHARACTER,
    DASH,
    DIGIT,
    DOLLAR,
    DOT,
    LETTER,
    MARK,
    NEWLINE,
    PLUS,
    SPACE,
    TABLE,
)

CANONICAL_VERSION = 1
"""Stored with every knowledge base; raise it whenever a rule changes."""

# A full stop after these does not end a sentence: "St. Louis", "Guardians Vol. 2".
_ABBREVIATIONS = [
    "st",
    "mr",
    "mrs",
    "ms",
    "dr",
    "jr",
    "sr",
    "mt",
    "ft",
    "vs",
    "no",
    "inc",
    "ltd",
    "co",
    "prof",
    "gen",
    "sgt",
    "lt",
    "col",
    "capt",
    "rev",
    "ave",
    "blvd",
    "dept",
    "gov",
    "sen",
    "rep",
    "hon",
    "bros",
    "vol",
    "pt",
    "feat",
    "op",
    "mme",
    "mlle",
    "ste",
]

_SPACE_BYTE = 32
# Two before and two after: the rules look at most that far.
_PADDING = "\n\n"


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of captions; all arrays but `buffer` have one item per token."""

    buffer: np.ndarray
    """Canonical UTF-8 bytes: every token is followed by one space."""
    start: np.ndarray
    """First byte in the buffer; tokens i to j are the name buffer[start[i]:end[j]]."""
    end: np.ndarray
    char_start: np.ndarray
    """Code points in the raw caption."""
    char_end: np.ndarray
    row: np.ndarray
    """Index of the caption."""
    barrier: np.ndarray
    """No name may contain both this token and the one before it."""
    is_character: np.ndarray
    """Token of a script that writes without spaces."""

    def __len__(self) -> int:
        return len(self.start)


def canonical(name: str) -> str:
    """Returns the canonical form of one name: its tokens joined by one space, or ""."""
    return canonical_batch([name])[0].as_py()


def canonical_batch(names: Sequence[str]) -> pa.StringArray:
    """Returns the canonical forms of many names (best a few thousand at a time)."""
    tokens = tokenise(names)
    last = np.ones(len(tokens), bool)
    last[:-1] = tokens.row[1:] != tokens.row[:-1]
    # Dropping the space behind the last token of each name leaves the names back to back.
    data = np.delete(tokens.buffer, tokens.end[last])
    ends = tokens.end[last] - np.arange(np.count_nonzero(last))
    lengths = np.zeros(len(names), np.int64)
    lengths[tokens.row[last]] = np.diff(ends, prepend=0)
    offsets = np.zeros(len(names) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.StringArray.from_buffers(len(names), pa.py_buffer(offsets), pa.py_buffer(data))


def tokenise(captions: Sequence[str | None]) -> Tokens:
    """Splits a batch of captions into canonical tokens.

    Raises:
        InputError: a caption is not text.
    """
    text, row_start = _joined(captions)
    if text.isascii():
        raw = text.lower().encode()
        chars = np.frombuffer(raw, np.uint8)
        classes = np.frombuffer(raw.translate(_ASCII_TABLE), np.uint8)
        return _tokens(chars, classes, None, row_start)
    return _tokenise_unicode(text, row_start)


def _tokenise_unicode(text: str, row_start: np.ndarray) -> Tokens:
    """Does for any text what the first lines of `tokenise` do for ASCII."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return _tokens(*TABLE.apply(codes), row_start)


_ASCII_TABLE = ASCII_CLASSES + bytes(128)


def _joined(captions: Sequence[str | None]) -> tuple[str, np.ndarray]:
    """Returns the captions as one padded text, and the position of each one's first character."""
    texts = [caption or "" for caption in captions]
    try:
        text = _PADDING + "\n".join(texts) + _PADDING
    except TypeError:
        row = next(i for i, caption in enumerate(texts) if not isinstance(caption, str))
        raise InputError(
            f"Caption {row} is {captions[row]!r}, but captions must be text (str) or None."
        ) from None
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return text, len(_PADDING) + np.cumsum(lengths + 1) - lengths - 1


def _tokens(
    chars: np.ndarray, classes: np.ndarray, source: np.ndarray | None, row_start: np.ndarray
) -> Tokens:
    """Applies the rules; `source` maps characters to positions in the text (None: the same)."""
    word, begin, breaks = _boundaries(chars, classes)
    position = np.flatnonzero(word)  # of every character that is kept
    first = np.flatnonzero(begin[position])  # of each token, among the kept ones
    stop = np.append(first, len(position))[1:]
    number = np.arange(len(first))
    first_position, last_position = position[first], position[stop - 1]

    buffer = np.full(len(position) + len(first), _SPACE_BYTE, chars.dtype)
    buffer[np.arange(len(position)) + np.repeat(number, stop - first)] = chars[position]
    # The surface of "U.S." includes the final dot, although the token is "u.s".
    inner_dot = word[last_position - 1] & (classes[last_position - 1] == DOT)
    acronym = inner_dot & (classes[last_position + 1] == DOT)
    char_start, char_end = _source_span(first_position, last_position + acronym, source)
    row = np.searchsorted(row_start, char_start, side="right") - 1
    buffer, start, end = _as_utf8(buffer, first + number, stop + number)

    barrier = np.zeros(len(first) + 1, bool)
    before = np.searchsorted(first_position, breaks)
    ends_sentence = classes[breaks] == DOT
    abbreviated = _is_abbreviation(buffer, start, end, before - 1) & ends_sentence
    barrier[before[~abbreviated]] = True
    barrier = barrier[:-1]
    barrier[:1] = True
    barrier[1:] |= row[1:] != row[:-1]
    return Tokens(
        buffer=buffer,
        start=start,
        end=end,
        char_start=char_start - row_start[row],
        char_end=char_end - row_start[row],
        row=row,
        barrier=barrier,
        is_character=classes[first_position] == CHARACTER,
    )


def _boundaries(
    chars: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns which characters words keep, which begin a token, and positions of barriers."""
    # SEPARATOR is 0 and wraps to 255: one comparison for "LETTER to CHARACTER".
    plain = (classes - np.uint8(LETTER)) < CHARACTER
    word = plain.copy()
    special = np.flatnonzero(classes > SPACE)
    kinds = classes[special]

    at = {kind: special[kinds == kind] for kind in (APOSTROPHE, AMPERSAND, DOLLAR, PLUS, DOT, DASH)}
    possessive = _possessives(at[APOSTROPHE], chars, plain)
    inside = (
        possessive,
        _between(at[AMPERSAND], (classes == LETTER) | (classes == DIGIT)),
        _between(at[DOLLAR], classes == LETTER),
        _plus_signs(at[PLUS], classes, plain),
        _acronym_dots(at[DOT], classes, plain),
    )
    for positions in inside:
        word[positions] = True

    begin = word.copy()
    begin[1:] &= ~word[:-1]
    begin[possessive] = True
    is_character = classes == CHARACTER
    if is_character.any():
        begin |= is_character
        begin[1:] |= is_character[:-1] & word[1:] & (classes[1:] != MARK)

    dots, dashes = at[DOT], at[DASH]
    # A dot behind a single letter is an initial or an acronym: "J. K. Rowling", "the U.S. flag".
    single = plain[dots - 1] & ~plain[dots - 2]
    sentence = dots[_is_space(classes[dots + 1]) & ~single]
    spaced = dashes[_is_space(classes[dashes - 1]) & _is_space(classes[dashes + 1])]
    always = special[(kinds == BAR) | (kinds == NEWLINE)]
    return word, begin, np.concatenate([sentence, spaced, always])


def _is_space(classes: np.ndarray) -> np.ndarray:
    return (classes == SPACE) | (classes == NEWLINE)


def _between(at: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    return at[neighbour[at - 1] & neighbour[at + 1]]


def _possessives(at: np.ndarray, chars: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Returns the apostrophes of 's, whatever precedes: tokenised corpora write "Turkey 's"."""
    return at[(chars[at + 1] == ord("s")) & ~plain[at + 2]]


def _plus_signs(at: np.ndarray, classes: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Returns the plus signs, at most two in a row, that follow a letter and end a word."""
    ends = ~plain[at + 1] & (classes[at + 1] != PLUS)
    next_ends = (classes[at + 1] == PLUS) & ~plain[at + 2] & (classes[at + 2] != PLUS)
    follows = classes[at - 1] == LETTER
    second = (classes[at - 1] == PLUS) & (classes[at - 2] == LETTER) & ends
    return at[(follows & (ends | next_ends)) | second]


def _acronym_dots(at: np.ndarray, classes: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Returns the dots between two letters that each stand alone."""
    left = (classes[at - 1] == LETTER) & ~plain[at - 2]
    right = (classes[at + 1] == LETTER) & ~plain[at + 2]
    return at[left & right]


def _source_span(
    first: np.ndarray, last: np.ndarray, source: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Maps tokens' first and last characters to a span [start, end) of the text."""
    if source is None:
        return first, last + 1
    # What lies before the next kept character was dropped (a combining accent): part of the word.
    return source[first], np.maximum(source[last] + 1, source[last + 1])


def _as_utf8(
    buffer: np.ndarray, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns code points into UTF-8 and positions of code points into positions of bytes."""
    if buffer.dtype == np.uint8:
        return buffer, start, end
    widths = 1 + (buffer >= 0x80) + (buffer >= 0x800).astype(np.int8) + (buffer >= 0x10000)
    position = np.zeros(len(buffer) + 1, np.int64)
    np.cumsum(widths, out=position[1:])
    encoded = buffer.astype("<u4").tobytes().decode("utf-32-le").encode()
    return np.frombuffer(encoded, np.uint8), position[start], position[end]


def _packed(buffer: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Returns tokens of up to 4 bytes as one integer each; longer ones give 0."""
    padded = np.concatenate([buffer, np.zeros(4, np.uint8)])
    taken = padded[start[:, None] + np.arange(4)]
    taken[np.arange(4) >= (end - start)[:, None]] = 0
    codes = np.ascontiguousarray(taken).view("<u4")[:, 0]
    return np.where(end - start <= 4, codes, np.uint32(0))


_PACKED_ABBREVIATIONS = np.array(
    [int.from_bytes(word.encode(), "little") for word in _ABBREVIATIONS], np.uint32
)


def _is_abbreviation(
    buffer: np.ndarray, start: np.ndarray, end: np.ndarray, token: np.ndarray
) -> np.ndarray:
    """Says of each token number whether it is a known abbreviation; -1 means no token."""
    known = np.zeros(len(token), bool)
    real = np.flatnonzero(token >= 0)
    codes = _packed(buffer, start[token[real]], end[token[real]])
    known[real] = np.isin(codes, _PACKED_ABBREVIATIONS)
    return known
