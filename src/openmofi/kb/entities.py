"""HTML entities in raw text -> the characters they stand for, and the way back to the raw text.

Alternative texts of web pages often keep them: "Trinidad &amp; Tobago", "C&ocirc;te d&#39;Ivoire",
"&amp;eacute;", escaped twice. Without its semicolon an entity counts where HTML itself takes it
inside an attribute: "caf&eacute bar", but not "?a=1&copy=2" (HTML Standard, 13.2.5.73).

A batch without "&" pays for looking for one, and nothing else.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html.entities import html5

import numpy as np

from openmofi.arrays.compiled import compiled

_AMPERSAND = 38
_ENTITY = re.compile(
    rb"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)*"
    rb"(?:(#[0-9]{1,9}|#[xX][0-9a-fA-F]{1,8}|[A-Za-z][A-Za-z0-9]{1,31})(;?))?"
)
_WORD = re.compile(rb"[A-Za-z0-9=]")
_ADDRESS = re.compile(rb"(?:://|\?)\S*\Z")
_FARTHEST = 200
"""Bytes before an entity without semicolon that are searched for the beginning of an address."""


@dataclass(frozen=True)
class Expansion:
    """A batch of texts with their entities expanded."""

    data: np.ndarray
    """uint8, UTF-8."""
    offsets: np.ndarray
    """Where each text begins, and where the last one ends."""
    base: int
    """Where the texts began in the raw data."""
    start: np.ndarray
    """First byte of what stands for each entity, in `data`."""
    end: np.ndarray
    """Byte behind the last."""
    raw_size: np.ndarray
    """Bytes, which are characters, of each entity in the raw text."""

    def to_raw(self, places: np.ndarray, row_start: np.ndarray) -> None:
        """Turns places in the expanded texts into those in the raw ones that they came from.

        Args:
            places: int64 [4, tokens], changed: code point at which each token begins in its text,
                and behind its end; its first byte in the data, and that behind its end.
            row_start: first token of each text.
        """
        around = self.data, self.offsets, self.base, self.start, self.end, self.raw_size
        _to_raw(places, row_start, *around)


@compiled
def _to_raw(places, row_start, data, offsets, base, start, end, raw_size):
    shift, entity = np.int64(base), 0
    begins, stops = np.empty(len(start), np.int64), np.empty(len(start), np.int64)
    for row in range(len(offsets) - 1):
        low, high = row_start[row], row_start[row + 1]
        first, before = entity, shift
        number, at = 0, offsets[row]
        while entity < len(start) and start[entity] < offsets[row + 1]:
            number += _characters(data, at, start[entity])
            begins[entity] = number
            number += _characters(data, start[entity], end[entity])
            stops[entity], at = number, end[entity]
            shift += raw_size[entity] - (end[entity] - start[entity])
            entity += 1
        if entity == first:
            places[2:, low:high] += shift
            continue
        part = slice(first, entity)
        for k in range(2):
            _back(places[k, low:high], begins[part], stops[part], raw_size[part], 0, k)
            _back(places[k + 2, low:high], start[part], end[part], raw_size[part], before, k)


@compiled
def _characters(data, at, stop):
    count = 0
    for i in range(at, stop):
        count += data[i] & 0xC0 != 0x80
    return count


@compiled
def _back(places, start, end, raw_size, shift, is_end):
    """Moves rising places; those inside an entity to its beginning, or, of ends, to its end."""
    entity = 0
    for i in range(len(places)):
        while entity < len(end) and end[entity] <= places[i]:
            shift += raw_size[entity] - (end[entity] - start[entity])
            entity += 1
        if entity < len(start) and start[entity] < places[i]:
            places[i] = start[entity] + is_end * raw_size[entity]
        places[i] += shift


def expand_entities(data: np.ndarray, offsets: np.ndarray) -> Expansion | None:
    """Returns the texts with their entities expanded; None: they have none."""
    part = data[offsets[0] : offsets[-1]]
    if not (part == _AMPERSAND).any():
        return None
    found = list(_entities(part.tobytes(), int(offsets[0]), offsets.tolist()))
    return _expansion(data, offsets, found) if found else None


def _expansion(
    data: np.ndarray, offsets: np.ndarray, found: list[tuple[int, int, bytes]]
) -> Expansion:
    """Puts characters in the place of entities: (first byte, byte behind the last, characters)."""
    starts, ends, texts = zip(*found, strict=True)
    raw_size = np.subtract(ends, starts)
    sizes = np.array([len(text) for text in texts])
    gained = np.concatenate(([0], np.cumsum(raw_size - sizes)))
    base = int(offsets[0])
    passed = np.searchsorted(np.array(ends), offsets, "right")
    new_ends = np.array(ends) - base - gained[1:]
    return Expansion(
        data=_replaced(data, base, int(offsets[-1]), found),
        offsets=offsets - base - gained[passed],
        base=base,
        start=new_ends - sizes,
        end=new_ends,
        raw_size=raw_size,
    )


def _entities(text: bytes, base: int, offsets: list[int]) -> Iterator[tuple[int, int, bytes]]:
    for match in _ENTITY.finditer(text):
        if match.end() == match.start() + 1:
            continue
        row = bisect_right(offsets, base + match.start()) - 1
        stop = offsets[row + 1] - base
        if match.end() > stop:  # it goes on in another text
            match = _ENTITY.match(text, match.start(), stop)
            assert match is not None
        end, meant = _meaning(text, match, offsets[row] - base, stop)
        if meant:
            yield base + match.start(), base + end, meant


def _meaning(text: bytes, match: re.Match[bytes], start: int, stop: int) -> tuple[int, bytes]:
    """Returns (where the entity ends, the characters it stands for, or nothing)."""
    name, semicolon = match[1], match[2]
    if name:
        meant = _character(name, bool(semicolon))
        is_safe = semicolon or _may_lack_semicolon(text, match, start, stop)
        if meant and is_safe:
            return match.end(), meant
    end = match.start(1) if name else match.end()
    return end, b"&" if end > match.start() + 1 else b""


def _may_lack_semicolon(text: bytes, match: re.Match[bytes], start: int, stop: int) -> bool:
    if _WORD.match(text, match.end(), stop):
        return False
    before = text[max(start, match.start() - _FARTHEST) : match.start()]
    return not _ADDRESS.search(before)


@lru_cache(maxsize=4096)
def _character(name: bytes, has_semicolon: bool) -> bytes:
    """Returns what an entity stands for, in UTF-8; nothing where there is none of the name."""
    text = name.decode("ascii")
    if text.startswith("#"):  # as browsers do: 150 is a dash, and what cannot be U+FFFD
        return (html.unescape(f"&{text};") or "\ufffd").encode()
    return html5.get(text + ";" * has_semicolon, "").encode()


def _replaced(
    data: np.ndarray, start: int, stop: int, found: list[tuple[int, int, bytes]]
) -> np.ndarray:
    raw, pieces, at = data[start:stop].tobytes(), [], 0
    for begin, end, text in found:
        pieces += [raw[at : begin - start], text]
        at = end - start
    return np.frombuffer(b"".join([*pieces, raw[at:]]), np.uint8)
