"""Vectors of entities' texts, computed once per knowledge base and model for all jobs.

One flat file, a row of fp16 per entity, is memory-mapped and shared by all processes. A row is
written when its entity is first a candidate; until then it is a hole that takes no disk space. Only
a row of length 1 counts as written, so after a kill, or with two machines at once, the worst case
is that a row is computed twice.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.kb import KnowledgeBase
from openmofi.label.encoder import Encoder

FOLDER = "entity_vectors"
_UNIT = 0.02
"""Tolerated deviation of a stored vector's length from 1; rounding to fp16 changes it by less."""
_AT_ONCE = 1024
"""Texts after which vectors are written, so that a kill costs no more."""
_CARRIED = 16_384
"""Vectors that are copied at once."""
_SAMPLE = 128
_LEAST_SPREAD = 0.01
"""Of cosines that should tell texts apart; less is rounding, or a handful of entities."""


class EntityVectors:
    """Unit vectors of the texts of a knowledge base's entities."""

    def __init__(
        self,
        kb: KnowledgeBase,
        encoder: Encoder,
        path: Path,
        *,
        texts: Callable[[np.ndarray], list[str]] | None = None,
        advance: Callable[[int], object] | None = None,
    ):
        """Opens the file, or makes it.

        Args:
            kb: the entities.
            encoder: encodes those that nobody encoded before.
            path: the file.
            texts: rows -> texts of entities; `KnowledgeBase.entity_text` by default.
            advance: told the number of texts, whenever some were encoded.
        """
        self._advance, self._texts = advance, texts or kb.entity_text
        self.kb, self.encoder, self.path = kb, encoder, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        size = len(kb) * encoder.dim * 2
        if os.fstat(self._file).st_size < size:
            os.truncate(self._file, size)  # makes a hole; harmless if another process does so, too
        self._stored = np.memmap(path, np.float16, "r", shape=(len(kb), encoder.dim))

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns float32 unit vectors [n, dim] of rows of the knowledge base."""
        vectors = self._stored[rows].astype(np.float32)
        missing = np.flatnonzero(~_is_written(vectors))
        for at in range(0, len(missing), _AT_ONCE):
            part = missing[at : at + _AT_ONCE]
            new = self.encoder.encode_texts_alone(self._texts(rows[part]))
            halves = new.astype(np.float16)
            for row, vector in zip(rows[part].tolist(), halves, strict=True):
                os.pwrite(self._file, vector.tobytes(), row * vector.nbytes)
            vectors[part] = halves.astype(np.float32)  # the numbers that later shards will read
            if self._advance:
                self._advance(len(part))
        return vectors

    def unrelated(self) -> tuple[float, float]:
        """Returns mean and standard deviation of the cosines of entities drawn at random.

        They are rounded, since the last bits depend on how many threads compute them.
        """
        rows = np.unique(np.linspace(0, len(self.kb) - 1, _SAMPLE).astype(np.int64))
        vectors = self.of(rows).astype(np.float64)
        cosines = (vectors @ vectors.T)[np.triu_indices(len(rows), 1)]
        if not len(cosines):
            return 0.0, 1.0
        return round(float(cosines.mean()), 4), max(round(float(cosines.std()), 4), _LEAST_SPREAD)

    def __del__(self) -> None:
        if hasattr(self, "_file"):  # not if opening failed
            os.close(self._file)


def carry_vectors(old: tuple[KnowledgeBase, Path], new: tuple[KnowledgeBase, Path]) -> None:
    """Copies vectors of entities whose texts stay, so that nobody encodes them again.

    Args:
        old: a knowledge base, and the file of its vectors, which may be missing.
        new: another one; rows of its file that are written already are left alone.
    """
    (old_kb, source), (kb, path) = old, new
    if not source.is_file() or not len(old_kb):
        return
    shape = source.stat().st_size // (2 * len(old_kb))
    if not shape:  # killed before the file got its size
        return
    before = np.memmap(source, np.float16, "r", shape=(len(old_kb), shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if file.tell() < len(kb) * shape * 2:
            file.truncate(len(kb) * shape * 2)
    after = np.memmap(path, np.float16, "r+", shape=(len(kb), shape))
    for at in range(0, len(old_kb), _CARRIED):
        rows = at + np.flatnonzero(_is_written(before[at : at + _CARRIED]))
        ids = old_kb.ids.take(pa.array(rows))
        there = kb.find_rows(ids)
        found = np.flatnonzero(there >= 0)
        rows, there = rows[found], there[found]
        same = pc.equal(kb.ids.take(pa.array(there)), ids.take(pa.array(found)))
        texts = [texts.described(r) for texts, r in ((old_kb.texts, rows), (kb.texts, there))]
        same = pc.and_(same, pc.equal(*texts)).to_numpy(zero_copy_only=False)
        wanted = same & ~_is_written(after[there])
        after[there[wanted]] = before[rows[wanted]]
    after.flush()


def _is_written(vectors: np.ndarray) -> np.ndarray:
    """Returns which rows are vectors, and not holes or torn."""
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    return np.abs(lengths - 1) < _UNIT


def place(kb: Path, out: Path, key: str) -> Path:
    """Returns the path of the vectors: in the knowledge base, or in the job if that is read-only.

    Args:
        kb: directory of the knowledge base.
        out: directory of the job.
        key: identifies the model.
    """
    folder = kb if os.access(kb, os.W_OK) else out
    return folder / FOLDER / f"{key}.f16"
