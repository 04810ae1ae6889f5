"""Batches of rows and their vectors -> the files of an index part, in memory of one 16-bit copy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from openmofi.schema import INDEX_ROWS
from openmofi.search.part import ROWS_PER_GROUP, Origin
from openmofi.shards import OutputError


class PartWriter:
    """Writes a part's vectors and rows; without a graph or lists, all are compared.

    Use it as a context: the files are whole at its end.
    """

    def __init__(self, folder: Path, *, dim: int, most_rows: int):
        """Begins a part.

        Args:
            folder: created here.
            dim: width of the vectors.
            most_rows: no more rows will come.
        """
        import faiss

        folder.mkdir()
        self.folder, self.num_rows = folder, 0
        half = faiss.ScalarQuantizer.QT_fp16
        self._stored = faiss.IndexScalarQuantizer(dim, half, faiss.METRIC_INNER_PRODUCT)
        self._stored.train(np.zeros((1, dim), np.float32))
        # Else the memory is doubled, and copied, whenever it is full.
        self._stored.codes.resize(most_rows * self._stored.code_size)
        self._waiting: list[pa.Table] = []
        self._rows = pq.ParquetWriter(folder / "rows.parquet", INDEX_ROWS)

    def add(self, rows: pa.Table, vectors: Float[np.ndarray, "n dim"]) -> None:
        """Adds rows.

        Args:
            rows: schema.INDEX_ROWS, whose `origin` is an index into the part's origins.
            vectors: unit vectors, float32.
        """
        self._stored.add(np.ascontiguousarray(vectors, np.float32))
        self.num_rows += len(rows)
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= ROWS_PER_GROUP:
            self._write_rows()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import faiss

        if kind is None:
            self._write_rows()
            if not self.num_rows:
                self._stored.codes.resize(0)
            with writing(self.folder):
                self._rows.close()
                faiss.write_index(self._stored, str(self.folder / "vectors.faiss"))
            del self._stored
        else:
            self._rows.close()

    def _write_rows(self) -> None:
        """Writes the rows that wait, in groups that are read together."""
        rows, self._waiting = pa.concat_tables([INDEX_ROWS.empty_table(), *self._waiting]), []
        with writing(self.folder):
            self._rows.write_table(rows, row_group_size=ROWS_PER_GROUP)


def write_names(folder: Path, entities: pa.Table, origins: list[Origin]) -> None:
    """Writes what a part says about its rows as a whole.

    Args:
        folder: the part.
        entities: schema.INDEX_ENTITIES of its rows.
        origins: where the images lie.
    """
    pq.write_table(entities, folder / "entities.parquet")
    described = {"origins": [vars(origin) for origin in origins]}
    (folder / "part.json").write_text(json.dumps(described, indent=2) + "\n")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns a full disk into a sentence.

    Raises:
        OutputError: something cannot be written.
    """
    try:
        yield
    except (RuntimeError, OSError) as error:  # faiss raises the former, for a full disk, too
        why = str(error).strip().rsplit("\n", 1)[-1].rsplit(": ", 1)[-1]
        raise OutputError(
            f"The index cannot be written below {str(folder.parent)!r} ({why}); free some space "
            "and repeat the command."
        ) from None
