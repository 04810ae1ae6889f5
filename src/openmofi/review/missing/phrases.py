"""Captions -> the phrases of one to four words that may be names, and which images bear them.

In: captions of refused images and of all images. Out: `Phrases`. A phrase neither begins nor ends
with a function word or boilerplate, crosses no barrier (kb/text.py) and is not a number. Counting
takes bounded memory: where there are too many different phrases, those that came once by then are
forgotten (lossy counting, Manku and Motwani, VLDB 2002), which loses none that is frequent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from openmofi.arrays.hashing import Hasher
from openmofi.corrections.keys import find
from openmofi.kb.text import Tokens, canonical, tokenise

LONGEST = 4
"""Words of a phrase."""
_MOST = 8_000_000
"""Different phrases that are counted at a time."""
_HASHER = Hasher(0)
# Names that cameras give: dsc09720, img, p1010034.
_FILE_NAME = re.compile(r"(img|dsc|dscn|dscf|pict|p|mvc|imag|cimg|screenshot)?[\d.]*")


@dataclass(frozen=True)
class Phrases:
    """Phrases that many refused images bear; the arrays have one element per phrase."""

    key: np.ndarray
    """uint64, sorted: hash of the canonical form."""
    refused: np.ndarray
    """Refused images that bear it."""
    everywhere: np.ndarray
    """All images that bear it."""

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True)
class Bearers:
    """Which images bear which phrase, sorted by phrase, then by image."""

    begins: np.ndarray
    """First element of `image` of each phrase; has one more item than there are phrases."""
    image: np.ndarray
    words: np.ndarray
    """Words of each phrase."""
    text: list[str]
    """Canonical form of each phrase."""

    def of(self, phrase: int) -> np.ndarray:
        """Returns the images that bear a phrase."""
        return self.image[self.begins[phrase] : self.begins[phrase + 1]]

    def keep(self, phrases: np.ndarray) -> Bearers:
        """Returns some of the phrases, given a mask."""
        of = np.repeat(np.arange(len(phrases)), np.diff(self.begins))
        sizes = np.diff(self.begins)[phrases]
        text = [one for one, kept in zip(self.text, phrases.tolist(), strict=True) if kept]
        return Bearers(_begins(sizes), self.image[phrases[of]], self.words[phrases], text)

    def first(self, most: int) -> Bearers:
        """Returns the first few images of each phrase."""
        sizes = np.diff(self.begins)
        rank = np.arange(len(self.image)) - np.repeat(self.begins[:-1], sizes)
        return Bearers(
            _begins(np.minimum(sizes, most)), self.image[rank < most], self.words, self.text
        )

    def only(self, usable: np.ndarray) -> Bearers:
        """Returns the phrases with those of their images that are usable, given a mask."""
        kept = usable[self.image]
        of = np.repeat(np.arange(len(self.text)), np.diff(self.begins))
        sizes = np.bincount(of[kept], minlength=len(self.text))
        return Bearers(_begins(sizes), self.image[kept], self.words, self.text)

    def among(self, images: np.ndarray) -> Bearers:
        """Returns the phrases with images counted among some, which are sorted."""
        place = np.minimum(np.searchsorted(images, self.image), max(len(images) - 1, 0))
        there = images[place] == self.image
        of = np.repeat(np.arange(len(self.text)), np.diff(self.begins))
        sizes = np.bincount(of[there], minlength=len(self.text))
        return Bearers(_begins(sizes), place[there], self.words, self.text)


def count_phrases(
    refused: Iterable[pa.Array],
    everywhere: Iterable[pa.Array],
    stop: frozenset[str],
    *,
    least: int,
    most: int = _MOST,
) -> Phrases:
    """Returns the phrases that at least some refused images bear.

    Args:
        refused: captions of refused images, in batches.
        everywhere: captions of all images, in batches.
        stop: words with which no phrase begins or ends.
        least: fewest refused images of a phrase.
        most: different phrases to count at a time.
    """
    stops = _hashes(stop)
    known, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for batch in refused:
        _, keys, _ = _distinct(batch, stops)
        known, counts = _added(known, counts, keys)
        if len(known) > most:
            kept = counts > 1
            known, counts = known[kept], counts[kept]
    frequent = counts >= least
    key, number = known[frequent], counts[frequent]
    total = np.zeros(len(key), np.int64)
    for batch in everywhere:
        _, keys, _ = _distinct(batch, stops)
        place, there = find(key, keys)
        total += np.bincount(place[there], minlength=len(key))
    return Phrases(key, number, np.maximum(total, number))


def find_bearers(
    captions: pa.ChunkedArray | pa.Array, key: np.ndarray, stop: frozenset[str]
) -> Bearers:
    """Returns which captions bear phrases, and the phrases' texts.

    Args:
        captions: of images, counted from 0.
        key: sorted hashes of phrases.
        stop: as for `count_phrases`.
    """
    stops = _hashes(stop)
    images, phrases = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    words, text = np.zeros(len(key), np.int64), [""] * len(key)
    for begin, batch in _batches(captions):
        image, found, spans = _distinct(batch, stops)
        place, there = find(key, found)
        images.append(image[there] + begin)
        phrases.append(place[there])
        new, first = np.unique(place[there], return_index=True)
        for phrase, span in zip(new.tolist(), np.flatnonzero(there)[first].tolist(), strict=True):
            if not text[phrase]:
                text[phrase] = spans.text(span)
                words[phrase] = text[phrase].count(" ") + 1
    image, phrase = np.concatenate(images), np.concatenate(phrases)
    order = np.lexsort((image, phrase))
    begins = np.searchsorted(phrase[order], np.arange(len(key) + 1))
    return Bearers(begins, image[order], words, text)


def is_numeral(text: str) -> bool:
    """Returns whether a phrase is made of numbers and file names only."""
    return all(_FILE_NAME.fullmatch(word) or len(word) == 1 for word in text.split())


def as_written(captions: list[str], phrase: str) -> str:
    """Returns how captions write a phrase most often, capitals before small letters."""
    seen: Counter[str] = Counter()
    wanted = phrase.split()
    for caption in captions:
        tokens = tokenise([caption])
        row = [
            bytes(tokens.buffer[s:e]).decode()
            for s, e in zip(tokens.start, tokens.end, strict=True)
        ]
        for at in range(len(row) - len(wanted) + 1):
            if row[at : at + len(wanted)] == wanted:
                last = at + len(wanted) - 1
                seen[caption[tokens.char_start[at] : tokens.char_end[last]]] += 1
                break
    plain = {one: n for one, n in seen.items() if canonical(one) == phrase and "-" not in one}
    choice = plain or seen
    if not choice:
        return phrase
    return max(choice, key=lambda one: (choice[one] * (1 if one != one.lower() else 0.5), one))


def _begins(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


# ---- one batch of captions ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Spans:
    buffer: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def text(self, span: int) -> str:
        return bytes(self.buffer[self.start[span] : self.end[span]]).decode()


def _batches(
    captions: pa.ChunkedArray | pa.Array, size: int = 16_384
) -> Iterator[tuple[int, pa.Array]]:
    for begin in range(0, len(captions), size):
        yield begin, captions[begin : begin + size]


def _distinct(captions: pa.Array, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray, _Spans]:
    """Returns (caption, hash, place) of every different phrase of every caption."""
    tokens = tokenise(captions)
    row, start, end = _spans(tokens, stops)
    keys = _HASHER.spans(tokens.buffer, start, end)
    order = np.lexsort((keys, row))
    row, keys = row[order], keys[order]
    first = np.ones(len(row), bool)
    first[1:] = (row[1:] != row[:-1]) | (keys[1:] != keys[:-1])
    order = order[first]
    return row[first], keys[first], _Spans(tokens.buffer, start[order], end[order])


def _spans(tokens: Tokens, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (caption, first byte, byte behind the last) of all phrases."""
    row = tokens.row
    words = _HASHER.spans(tokens.buffer, tokens.start, tokens.end)
    _, stopped = find(stops, words)
    begins, ends = ~stopped & ~tokens.inside, ~stopped & ~tokens.unfinished
    crossed = np.cumsum(tokens.barrier)
    parts = []
    for length in range(1, LONGEST + 1):
        last = np.arange(length - 1, len(tokens))
        first = last - length + 1
        good = begins[first] & ends[last] & (row[first] == row[last])
        good &= crossed[first] == crossed[last]
        parts.append((row[first[good]], tokens.start[first[good]], tokens.end[last[good]]))
    found = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    rows, start, end = found
    return rows, start, end


def _added(
    known: np.ndarray, counts: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    new, times = np.unique(keys, return_counts=True)
    both, inverse = np.unique(np.concatenate([known, new]), return_inverse=True)
    weights = np.concatenate([counts, times])
    return both, np.bincount(inverse, weights, len(both)).astype(np.int64)


def _hashes(words: Iterable[str]) -> np.ndarray:
    return np.sort(_HASHER.strings(pa.array(sorted(words), pa.string())))
