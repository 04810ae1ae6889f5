"""Context without a neural network: which entity's description shares words with the caption.

Captions become hashed TF-IDF vectors (Weinberger et al. 2009, arXiv 0902.2206), in which rare words
have more weight. The encoder needs no weights and has seen no images, so the linker stays
text-only.
"""

from __future__ import annotations

import numpy as np

from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import Captions
from openmofi.kb.words import distinct_words

_DIM = 512
_BATCH = 256
"""Texts whose cells fit the processor's caches."""


class WordEncoder:
    """Encodes texts by their words, weighted by their rarity in a KB's descriptions."""

    def __init__(self, kb: KnowledgeBase):
        self._kb = kb

    def encode_texts(self, texts: Captions) -> np.ndarray:
        """Returns float32 [n, 512], not normalised; zero for a text without words."""
        parts = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        return np.concatenate([self._encode(part) for part in parts or [texts]])

    def _encode(self, texts: Captions) -> np.ndarray:
        row, word = distinct_words(texts, self._kb.hasher)
        column = (word % np.uint64(_DIM)).astype(np.int64)
        sign = np.where(word >> np.uint64(63), 1.0, -1.0)
        cells = np.bincount(
            row * _DIM + column, sign * self._kb.words.rarity(word), minlength=len(texts) * _DIM
        )
        return cells.reshape(len(texts), _DIM).astype(np.float32)
