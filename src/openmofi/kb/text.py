"""The canonical form of names, used identically when a knowledge base is built and queried.

In: names or captions as they are written. Out: tokens, folded so that different spellings of one
name meet: "Dvořák's" -> "dvorak", "'s"; "North-Korea" -> "north", "korea"; "U.S.A." -> "u.s.a".

Rules (their reasons: names in captions are written without care, but AT&T is not "at" and "t"):
  * HTML entities stand for their characters (entities.py);
  * case and compatibility folding (NFKD), accents of Latin, Greek and Cyrillic stripped;
  * & between letters, + after a letter (C++), $ between letters (A$AP) and dots between single
    letters (U.S.A., J.R.R.) belong to the word;
  * 's is a token of its own, so that "Turkey's" contains "turkey";
  * every other sign separates words, and a name may span it: "Washington, D.C.";
  * a Han, Kana, Thai, Lao, Khmer or Burmese character is a token of its own, but no name begins or
    ends inside a word of theirs (runs.py), and a Korean particle is one, too (particles.py);
  * what only stretches a word or cannot be seen is dropped: tatweel, joiners, soft hyphens;
  * names do not span barriers, ". " (not after an abbreviation), "|", " - " and line breaks, but
    where they hold one themselves and the caption writes the same.

A batch of captions is one Arrow array; one compiled pass (numba) reads its bytes and writes tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.arrays.mapped import one_chunk
from openmofi.arrays.strings import string_buffers
from openmofi.errors import InputError
from openmofi.kb import scan
from openmofi.kb.codepoints import TABLE
from openmofi.kb.entities import Expansion, expand_entities

CANONICAL_VERSION = 2
"""Stored with every knowledge base; raise it whenever a rule changes."""

Captions = Sequence[str | None] | pa.Array | pa.ChunkedArray

# A full stop after these does not end a sentence: "St. Louis", "Guardians Vol. 2".
_ABBREVIATED = [
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


@dataclass(frozen=True)
class Tokens:
    """The tokens of a batch of captions; arrays but `buffer` and `row_start` have one item each."""

    buffer: np.ndarray
    """Canonical UTF-8 bytes: every token is followed by one space, then by the signs of barriers
    that follow it in the caption."""
    start: np.ndarray
    """First byte in the buffer; tokens i to j are the name buffer[start[i]:end[j]]. With a barrier
    among them that is only the name of what is written with the same."""
    end: np.ndarray
    char_start: np.ndarray
    """Code points in the raw caption."""
    char_end: np.ndarray
    raw_start: np.ndarray
    """Bytes in the data of the raw captions."""
    raw_end: np.ndarray
    barrier: np.ndarray
    """Only names that are written with it contain both this token and the one before it."""
    is_character: np.ndarray
    """Token of a script that writes without spaces."""
    inside: np.ndarray
    """It goes on with the word before it, as a particle or within a run: no name begins here."""
    unfinished: np.ndarray
    """Its word goes on in the next token: no name ends here."""
    case: np.ndarray
    """CASELESS, LOWERCASE, CAPITALISED, UPPERCASE (two letters or more), ONE_CAPITAL (A, 3D) or
    MIXED of scan.py."""
    row_start: np.ndarray
    """First token of each caption; one more item than captions."""

    def __len__(self) -> int:
        return len(self.start)

    @property
    def row(self) -> np.ndarray:
        """Index of the caption of each token."""
        return np.repeat(np.arange(len(self.row_start) - 1), np.diff(self.row_start))


def canonical(name: str) -> str:
    """Returns the canonical form of one name: its tokens joined by one space, or ""."""
    return canonical_batch([name])[0].as_py()


def canonical_batch(names: Captions) -> pa.StringArray:
    """Returns the canonical forms of many names (best a few ten thousand at a time)."""
    return _joined(tokenise(names), with_barriers=False)


def signed_forms(names: Captions) -> tuple[np.ndarray, pa.StringArray]:
    """Returns which names hold a barrier, and their canonical forms with the barriers' signs.

    "Oak chair - 45 cm" gives "oak chair -45 cm". Found under this and its canonical form, a name
    may be written with its sign or without, but not with another in its place.
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
    if expanded is not None:
        return _in_raw(_tokenised(expanded.data, expanded.offsets), expanded)
    return _tokenised(data, offsets)


def _tokenised(data: np.ndarray, offsets: np.ndarray) -> Tokens:
    """Splits texts without HTML entities, UTF-8 bytes one behind the other, into tokens."""
    while True:
        found = scan.scan_tokens(data, offsets, TABLE.arrays, _ABBREVIATIONS)
        unseen, buffer, table, row_start = found
        if unseen < 0:
            return _tokens(buffer, table, row_start)
        TABLE.learn(data[offsets[0] : offsets[-1]].tobytes().decode(errors="replace"))


def _tokens(buffer: np.ndarray, table: np.ndarray, row_start: np.ndarray) -> Tokens:
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
        row_start=row_start,
    )


def _in_raw(tokens: Tokens, expanded: Expansion) -> Tokens:
    """Returns tokens with their places in the raw captions."""
    names = ("char_start", "char_end", "raw_start", "raw_end")
    places = np.stack([getattr(tokens, name) for name in names])
    expanded.to_raw(places, tokens.row_start)
    return replace(tokens, **dict(zip(names, places, strict=True)))


def as_text(captions: Captions, number: int = 0) -> pa.LargeStringArray:
    """Returns captions as one Arrow array; `number` is that of the first, for the error.

    Raises:
        InputError: a caption is not text.
    """
    if isinstance(captions, pa.ChunkedArray):
        captions = one_chunk(captions)
    if isinstance(captions, pa.Array):
        return _cast(captions)
    try:
        return pa.array(captions, pa.large_string())
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; its place is kept, so that offsets stay right.
        return as_text([_without_surrogates(caption) for caption in captions], number)
    except (pa.ArrowException, TypeError):
        raise _no_text(captions, number) from None


def _no_text(captions: Sequence[Any], number: int) -> InputError:
    row = next(i for i, c in enumerate(captions) if not isinstance(c, str | None))
    return InputError(
        f"Caption {number + row} is {captions[row]!r}, but captions must be text (str) or None."
    )


def _cast(captions: pa.Array) -> pa.LargeStringArray:
    kind = captions.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    known = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not (pa.types.is_null(kind) or any(is_text(kind) for is_text in known)):
        raise InputError(f"Captions are an Arrow array of {kind}, but must be text.")
    return captions.cast(pa.large_string())


def _without_surrogates(caption: Any) -> Any:
    if not isinstance(caption, str):
        return caption
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in caption)


def _pack(word: str) -> int:
    """Returns a token of up to 5 bytes as one integer."""
    return int.from_bytes(word.encode(), "big")


_ABBREVIATIONS = np.sort(np.array([_pack(word) for word in _ABBREVIATED], np.uint64))
