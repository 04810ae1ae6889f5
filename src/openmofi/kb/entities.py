"""HTML entities in raw text -> the characters they stand for, and the way back to the raw text.

Alternative texts of web pages often contain them: "Trinidad &amp; Tobago",
"C&ocirc;te d&#39;Ivoire", "&amp;eacute;" (escaped twice). An entity without its semicolon counts
where HTML accepts it in an attribute: "caf&eacute bar", but not "?a=1&copy=2" (HTML Standard,
13.2.5.73).

A batch without "&" costs only the search for one.
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
"""How many bytes before an entity without semicolon are searched for the start of an address."""


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
    """First byte in `data` of each entity's replacement."""
    end: np.ndarray
    """Byte after its last one."""
    raw_size: np.ndarray
    """Bytes, which are also characters, of each entity in the raw text."""

    def to_raw(self, places: np.ndarray, row_start: np.ndarray) -> None:
        """Turns places in the expanded texts into places in the raw ones.

        Args:
            places: int64 [4, tokens], changed in place: first code point of each token in its text
                and the one after its end; first byte in the data and the one after its end.
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
    """Moves rising places; those inside an entity go to its start or, if ends, to its end."""
    entity = 0
    for i in range(len(places)):
        while entity < len(end) and end[entity] <= places[i]:
            shift += raw_size[entity] - (end[entity] - start[entity])
            entity += 1
        if entity < len(start) and start[entity] < places[i]:
            places[i] = start[entity] + is_end * raw_size[entity]
        places[i] += shift


def expand_entities(data: np.ndarray, offsets: np.ndarray) -> Expansion | None:
    """Returns the texts with their entities expanded, or None if they have none."""
    part = data[offsets[0] : offsets[-1]]
    if not (part == _AMPERSAND).any():
        return None
    raw, base = part.tobytes(), int(offsets[0])
    found = list(_entities(raw, base, offsets.tolist()))
    if not found:
        return None
    # The raw bytes with each entity replaced by its characters.
    pieces, at = [], 0
    for begin, end, text in found:
        pieces += [raw[at : begin - base], text]
        at = end - base
    # What every replacement shortens moves all that follows it.
    starts, ends, texts = zip(*found, strict=True)
    raw_size = np.subtract(ends, starts)
    sizes = np.array([len(text) for text in texts])
    gained = np.concatenate(([0], np.cumsum(raw_size - sizes)))
    passed = np.searchsorted(np.array(ends), offsets, "right")
    new_ends = np.array(ends) - base - gained[1:]
    return Expansion(
        data=np.frombuffer(b"".join([*pieces, raw[at:]]), np.uint8),
        offsets=offsets - base - gained[passed],
        base=base,
        start=new_ends - sizes,
        end=new_ends,
        raw_size=raw_size,
    )


def _entities(text: bytes, base: int, offsets: list[int]) -> Iterator[tuple[int, int, bytes]]:
    """Yields (first byte, byte after the last, characters) of each entity."""
    for match in _ENTITY.finditer(text):
        if match.end() == match.start() + 1:
            continue
        row = bisect_right(offsets, base + match.start()) - 1
        stop = offsets[row + 1] - base
        if match.end() > stop:  # it continues in another text
            match = _ENTITY.match(text, match.start(), stop)
            assert match is not None
        name, has_semicolon, end = match[1], bool(match[2]), match.end()
        meant = _character(name, has_semicolon) if name else b""
        if meant and not has_semicolon:
            # The semicolon may be missing only at the end of a word, and not in an address.
            first = max(offsets[row] - base, match.start() - _FARTHEST)
            if _WORD.match(text, end, stop) or _ADDRESS.search(text[first : match.start()]):
                meant = b""
        if not meant:
            # Not an entity, but an escaped ampersand may precede it.
            end = match.start(1) if name else end
            meant = b"&" if end > match.start() + 1 else b""
        if meant:
            yield base + match.start(), base + end, meant


@lru_cache(maxsize=4096)
def _character(name: bytes, has_semicolon: bool) -> bytes:
    """Returns what an entity stands for, in UTF-8; empty if no entity has the name."""
    text = name.decode("ascii")
    if text.startswith("#"):  # as browsers do: 150 is a dash, and an invalid number is U+FFFD
        return (html.unescape(f"&{text};") or "\ufffd").encode()
    return html5.get(text + ";" * has_semicolon, "").encode()
