"""What entities' texts look like to the encoder: rows of the knowledge base -> vectors, moments.

A text's vector differs in its last bits with the texts it is encoded together with. So that labels
are the same for any number of workers and after any interruption, popular entities are encoded in
fixed blocks of rows and kept, the others anew for each shard; memory stays bounded, too.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from openmofi.kb import KnowledgeBase
from openmofi.label.score import Background
from openmofi.model import MofiModel

_BLOCK = 64
_KEPT_ROWS = 4096


class EntityTexts:
    """Vectors of entities' texts, and the moments of their cosines with the background."""

    def __init__(self, kb: KnowledgeBase, model: MofiModel, background: Callable[[], Background]):
        self.kb, self.model = kb, model
        self._read_background = background
        self._background: Background | None = None
        self._blocks: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (unit vectors [n, dim], background mean and standard deviation [n, 2]).

        Args:
            rows: of the knowledge base, ascending, each once.
        """
        vectors = np.empty((len(rows), self.model.dim), dtype=np.float32)
        moments = np.empty((len(rows), 2), dtype=np.float32)
        kept = rows < _KEPT_ROWS
        for block in np.unique(rows[kept] // _BLOCK).tolist():
            here = rows // _BLOCK == block
            of_block = self._block(block)
            vectors[here], moments[here] = (part[rows[here] % _BLOCK] for part in of_block)
        if not kept.all():
            vectors[~kept], moments[~kept] = self._encode(rows[~kept])
        return vectors, moments

    def _block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._blocks:
            last = min((number + 1) * _BLOCK, len(self.kb))
            self._blocks[number] = self._encode(np.arange(number * _BLOCK, last))
        return self._blocks[number]

    def _encode(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._background is None:
            self._background = self._read_background()
        vectors = self.model.encode_texts(self.kb.entity_text(rows))
        ids = [self.kb.ids[row].as_py() for row in rows.tolist()]
        return vectors, self._background.moments(vectors, ids)
