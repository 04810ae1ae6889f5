"""Vectors of entities' texts: computed once per knowledge base and model, for all jobs.

One flat file, a row of fp16 per entity, memory-mapped and shared by all processes; rows are written
when a caption first offers their entity, and until then are holes that take no space on the disk. A
row counts as written if its length is 1, so a kill, or two machines at once, can do no more than
make a row be computed again.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from openmofi.kb import KnowledgeBase
from openmofi.label.encoder import Encoder

FOLDER = "entity_vectors"
_UNIT = 0.02
"""How far from 1 the length of a stored vector may be; fp16 rounds it by less."""


class EntityVectors:
    """Unit vectors of the texts of a knowledge base's entities."""

    def __init__(self, kb: KnowledgeBase, encoder: Encoder, path: Path):
        self.kb, self.encoder, self.path = kb, encoder, path
        self._file = _open(path, len(kb) * encoder.dim * 2)
        self._stored = np.memmap(path, np.float16, "r", shape=(len(kb), encoder.dim))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns float32 unit vectors [n, dim] of rows of the knowledge base."""
        vectors = self._stored[rows].astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1)
        missing = np.flatnonzero(~(np.abs(lengths - 1) < _UNIT))
        if len(missing):
            new = self.encoder.encode_texts_alone(self.kb.entity_text(rows[missing]))
            halves = new.astype(np.float16)
            for row, vector in zip(rows[missing].tolist(), halves, strict=True):
                os.pwrite(self._file, vector.tobytes(), row * vector.nbytes)
            vectors[missing] = halves.astype(np.float32)  # what a later shard will read
        return vectors

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # it is not, where it could not be opened
            os.close(self._file)


def _open(path: Path, size: int) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if os.fstat(file).st_size < size:
        os.truncate(file, size)  # makes a hole, and harms nobody who does the same
    return file


def place(kb: Path, out: Path, key: str) -> Path:
    """Returns where the vectors lie: in the knowledge base, or beside the labels if it is fixed.

    Args:
        kb: directory of the knowledge base.
        out: directory of the job.
        key: of the model.
    """
    folder = kb if os.access(kb, os.W_OK) else out
    return folder / FOLDER / f"{key}.f16"
