"""The canonical form of names, the same when a knowledge base is built and when it is queried.

In: names or captions as they are written. Out: tokens, folded so that different spellings of a
name become equal: "Dvořák's" -> "dvorak", "'s"; "North-Korea" -> "north", "korea";
"U.S.A." -> "u.s.a".

Rules, because names in captions are written carelessly, but AT&T is not "at" and "t":
  * HTML entities stand for their characters (entities.py);
  * case and compatibility are folded (NFKD), accents of Latin, Greek and Cyrillic dropped;
  * & between letters, + after a letter (C++), $ between letters (A$AP) and dots between single
    letters (U.S.A., J.R.R.) belong to the word;
  * 's is a token of its own, so "Turkey's" contains "turkey";
  * every other sign separates words, and a name may span it: "Washington, D.C.";
  * a Han, Kana, Thai, Lao, Khmer or Burmese character is a token of its own, but no name begins or
    ends inside a word of these scripts (unspaced.py); a Korean particle is a token of its own too
    (particles.py);
  * signs that only stretch a word or are invisible are dropped: tatweel, joiners, soft hyphens;
  * a name does not span a barrier, which is ". " (except after an abbreviation), "|", " - " or a
    line break, unless the name itself has one and the caption has the same.

A batch of captions is one Arrow array; one compiled pass (numba) reads its bytes and writes tokens.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from openmofi.arrays.mapped import one_chunk
from openmofi.arrays.strings import string_buffers
from openmofi.errors import InputError
from openmofi.kb import scan
from openmofi.kb.codepoints import TABLE
from openmofi.kb.entities import expand_entities

CANONICAL_VERSION = 2
"""Stored with every knowledge base; increase it whenever a rule changes."""

Captions = Sequence[str | None] | pa.Array | pa.ChunkedArray
_SURROGATE = re.compile("[\ud800-\udfff]")

# A full stop after these does not end a sentence: "St. Louis", "Guardians Vol. 2".
_ABBREVIATED = (
    "st mr mrs ms dr jr sr mt ft vs no inc ltd co prof gen sgt lt col capt rev ave blvd dept gov "
    "sen rep hon bros vol pt feat op mme mlle ste"
)
# Each has at most 5 bytes and fits into an integer.
_ABBREVIATIONS = np.sort(
    np.array([int.from_bytes(word.encode(), "big") for word in _ABBREVIATED.split()], np.uint64)
)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of captions; one item per token except in `buffer` and `row_start`."""

    buffer: np.ndarray
    """Canonical UTF-8 bytes: every token is followed by one space, then by the signs of barriers
    that follow it in the caption."""
    start: np.ndarray
    """First byte in the buffer; tokens i to j are the name buffer[start[i]:end[j]]. If a barrier is
    among them, this matches only names that are written with the same barrier."""
    end: np.ndarray
    char_start: np.ndarray
    """Code points in the raw caption."""
    char_end: np.ndarray
    raw_start: np.ndarray
    """Bytes in the data of the raw captions."""
    raw_end: np.ndarray
    barrier: np.ndarray
    """Whether a barrier precedes the token: names span it only if they are written with it."""
    is_character: np.ndarray
    """Whether the token belongs to a script that writes without spaces."""
    inside: np.ndarray
    """Whether it continues the word before it, as a particle or in a run: no name begins here."""
    unfinished: np.ndarray
    """Whether its word continues in the next token: no name ends here."""
    case: np.ndarray
    """CASELESS, LOWERCASE, CAPITALISED, UPPERCASE (two letters or more), ONE_CAPITAL (A, 3D) or
    MIXED of scan.py."""
    accented: np.ndarray
    """Whether it has an accent, or a letter such as ø that is folded into others."""
    row_start: np.ndarray
    """First token of each caption; has one more item than there are captions."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def row(self) -> np.ndarray:
        """Index of the caption of each token."""
        return np.repeat(np.arange(len(self.row_start) - 1), np.diff(self.row_start))


def canonical(name: str) -> str:
    """Returns the canonical form of one name: its tokens joined by spaces, or ""."""
    return canonical_batch([name])[0].as_py()


def canonical_batch(names: Captions) -> pa.StringArray:
    """Returns the canonical forms of many names, ideally tens of thousands at a time."""
    return _joined(tokenise(names), with_barriers=False)


def signed_forms(names: Captions) -> tuple[np.ndarray, pa.StringArray]:
    """Returns the positions of names with a barrier, and their canonical forms with its sign.

    "Oak chair - 45 cm" gives "oak chair -45 cm". Stored under this and its canonical form, a name
    is found with its sign or without it, but not with another sign instead.
    """
    tokens = tokenise(names)
    inner = tokens.barrier.copy()
    inner[tokens.row_start[:-1][np.diff(tokens.row_start) > 0]] = False
    number = np.unique(tokens.row[inner])
    return number, _joined(tokens, with_barriers=True).take(pa.array(number))


def _joined(tokens: Tokens, *, with_barriers: bool) -> pa.StringArray:
    places = tokens.start, tokens.end, tokens.row_start
    offsets, data = scan.join_tokens(tokens.buffer, *places, with_barriers)
    if offsets[-1] > np.iinfo(np.int32).max:
        raise InputError("A batch of names has more than 2 GB of text; pass fewer at a time.")
    offsets = offsets.astype(np.int32)
    return pa.StringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def tokenise(captions: Captions) -> Tokens:
    """Splits a batch of captions into canonical tokens.

    Raises:
        InputError: a caption is not text.
    """
    offsets, data = string_buffers(as_text(captions))
    expanded = expand_entities(data, offsets)
    if expanded is None:
        return _tokenised(data, offsets)
    tokens = _tokenised(expanded.data, expanded.offsets)
    names = ("char_start", "char_end", "raw_start", "raw_end")
    places = np.stack([getattr(tokens, name) for name in names])
    expanded.to_raw(places, tokens.row_start)
    return replace(tokens, **dict(zip(names, places, strict=True)))


def _tokenised(data: np.ndarray, offsets: np.ndarray) -> Tokens:
    """Splits texts without HTML entities, given as consecutive UTF-8 bytes, into tokens."""
    while True:
        found = scan.scan_tokens(data, offsets, TABLE.arrays, _ABBREVIATIONS)
        unseen, buffer, table, row_start = found
        if unseen < 0:
            break
        TABLE.learn(data[offsets[0] : offsets[-1]].tobytes().decode(errors="replace"))
    columns = np.ascontiguousarray(table.T)
    return Tokens(
        buffer=buffer,
        start=columns[scan.START],
        end=columns[scan.END],
        char_start=columns[scan.CHAR_START],
        char_end=columns[scan.CHAR_END],
        raw_start=columns[scan.RAW_START],
        raw_end=columns[scan.RAW_END],
        barrier=columns[scan.FLAGS] & scan.BARRIER != 0,
        is_character=columns[scan.FLAGS] & scan.STANDS_ALONE != 0,
        inside=columns[scan.FLAGS] & scan.INSIDE != 0,
        unfinished=columns[scan.FLAGS] & scan.UNFINISHED != 0,
        case=(columns[scan.FLAGS] >> scan.CASE_SHIFT).astype(np.uint8),
        accented=columns[scan.FLAGS] & scan.ACCENTED != 0,
        row_start=row_start,
    )


def as_text(captions: Captions, number: int = 0) -> pa.LargeStringArray:
    """Returns captions as one Arrow array; error messages count from `number`.

    Raises:
        InputError: a caption is not text.
    """
    if isinstance(captions, pa.ChunkedArray):
        captions = one_chunk(captions)
    if isinstance(captions, pa.Array):
        kind = captions.type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        if not (pa.types.is_null(kind) or any(is_text(kind) for is_text in known)):
            raise InputError(f"Captions are an Arrow array of {kind}, but must be text.")
        return captions.cast(pa.large_string())
    try:
        return pa.array(captions, pa.large_string())
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; another character takes its place, so offsets stay right.
        clean = [_SURROGATE.sub("\ufffd", c) if isinstance(c, str) else c for c in captions]
        return as_text(clean, number)
    except (pa.ArrowException, TypeError):
        row = next(i for i, c in enumerate(captions) if not isinstance(c, str | None))
        raise InputError(
            f"Caption {number + row} is {captions[row]!r}, but captions must be text (str) or None."
        ) from None
