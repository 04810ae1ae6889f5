"""Context without a neural network: which entity's description shares words with the caption.

Texts become hashed TF-IDF vectors (Weinberger et al. 2009, arXiv 0902.2206), rare words weighing
more. It needs no weights, has seen no picture, and so keeps the linker text-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import tokenise

_DIM = 512
_SAMPLE = 200_000
"""Entities whose words are counted; the most popular ones stand for all."""


class WordEncoder:
    """Encodes texts by their words, weighted by how rare they are among a KB's descriptions."""

    def __init__(self, kb: KnowledgeBase):
        self._kb = kb

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 [n, 512], not normalised; zero for a text without words."""
        row, word = self._words(texts)
        column = (word % np.uint64(_DIM)).astype(np.int64)
        sign = np.where(word >> np.uint64(63), 1.0, -1.0)
        cells = np.bincount(
            row * _DIM + column, weights=sign * self._rarity(word), minlength=len(texts) * _DIM
        )
        return cells.reshape(len(texts), _DIM).astype(np.float32)

    def _words(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns (text, hash) of every different word of every text."""
        tokens = tokenise(list(texts))
        hashes = self._kb.hasher.spans(tokens.buffer, tokens.start, tokens.end)
        order = np.lexsort((hashes, tokens.row))
        row, word = tokens.row[order].astype(np.int64), hashes[order]
        first = np.ones(len(row), bool)
        first[1:] = (row[1:] != row[:-1]) | (word[1:] != word[:-1])
        return row[first], word[first]

    def _rarity(self, word: np.ndarray) -> np.ndarray:
        """Returns log((1 + texts) / (1 + texts with the word)) of each word."""
        known, count, total = self._document_frequency
        at = np.minimum(np.searchsorted(known, word), max(len(known) - 1, 0))
        seen = np.where(known[at] == word, count[at], 0) if len(known) else np.zeros(len(word))
        return np.log((1.0 + total) / (1.0 + seen))

    @cached_property
    def _document_frequency(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns (hashes of words, sorted; in how many texts each occurs; number of texts)."""
        total = min(len(self._kb), _SAMPLE)
        _, words = self._words(self._kb.entity_text(np.arange(total)))
        known, count = np.unique(words, return_counts=True)
        return known, count, total
