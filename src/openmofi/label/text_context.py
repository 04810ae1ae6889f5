"""Any text encoder as what compares captions with candidates.

A knowledge base and a text encoder become a linker whose vectors of entities lie beside those that
`label` compares images with. A caption's vector does not depend on the captions beside it, so a
linker gives the same numbers whatever it linked before, and whichever process it runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.kb import KnowledgeBase
from openmofi.label.encoder import Encoder
from openmofi.label.entity_vectors import EntityVectors
from openmofi.link import Linker

_AT_ONCE = 1024


class LatestTexts:
    """Encodes texts, unless they were among those of the last call."""

    def __init__(self, encoder: Encoder, advance: Callable[[int], object] | None = None):
        """Takes the encoder, and what is told the number of texts that were encoded."""
        self._encoder, self._advance = encoder, advance
        self._known: dict[str, np.ndarray] = {}

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Returns float32 unit vectors [n, dim]."""
        distinct = dict.fromkeys(texts)
        new = [text for text in distinct if text not in self._known]
        encoded: dict[str, np.ndarray] = {}
        for at in range(0, len(new), _AT_ONCE):
            part = new[at : at + _AT_ONCE]
            encoded.update(zip(part, self._encoder.encode_texts_alone(part), strict=True))
            if self._advance:
                self._advance(len(part))
        known = self._known | encoded
        self._known = {text: known[text] for text in distinct}
        return np.stack([self._known[text] for text in texts])


def text_linker(
    kb: KnowledgeBase,
    encoder: Encoder,
    path: Path,
    *,
    advance: Callable[[int], object] | None = None,
    **others: Any,
) -> Linker:
    """Returns a linker whose context is a text encoder.

    Args:
        kb: the entities.
        encoder: encodes captions, and entities that nobody encoded before.
        path: file of the entities' vectors, see `entity_vectors`.
        advance: told the number of texts, whenever some were encoded.
        others: further arguments of `Linker`.
    """
    entities = EntityVectors(kb, encoder, path, advance=advance)
    return Linker(kb, encoder=LatestTexts(encoder, advance), entities=entities, **others)
