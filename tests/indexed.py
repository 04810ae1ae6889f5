"""Embeddings whose every column is known, and indexes of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi import schema
from openmofi.config import IndexSettings
from openmofi.search import Index


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, count: int, dim: int, *, clusters: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Returns unit vectors around centres, and the centre of each."""
    centres = rng.standard_normal((clusters, dim))
    of = rng.integers(0, clusters, count)
    return unit(centres[of] + 0.8 * rng.standard_normal((count, dim))), of


def write_embeddings(
    path: Path, vectors: np.ndarray, /, *, first: int = 0, root="", model="", **more
):
    """Writes what `embed` would; further columns replace the plain ones.

    Args:
        path: the Parquet file.
        vectors: [n, dim].
        first: number of the first row, which names its image.
        root: where the images lie.
        model: what made the vectors.
        more: columns of schema.embeddings, as lists.
    """
    numbers = range(first, first + len(vectors))
    columns = {
        "id": [f"r{i}" for i in numbers],
        "shard": ["a.tar"] * len(vectors),
        "path": [""] * len(vectors),
        "offset": list(numbers),
        "size": [1] * len(vectors),
        "caption": [f"caption {i}" for i in numbers],
        "url": [""] * len(vectors),
        "entities": [[]] * len(vectors),
        "label_scores": [None] * len(vectors),
        "text_area": [None] * len(vectors),
        "labels_row": [None] * len(vectors),
        "vector": list(vectors.astype(np.float16)),
    }
    known = schema.embeddings(vectors.shape[1]).with_metadata(
        {"openmofi.root": str(root), "openmofi.model": str(model)}
    )
    pq.write_table(pa.table(columns | more, schema=known), path)
    return path


def make_index(folder: Path, vectors: np.ndarray, /, *, kind="auto", kb=None, **columns) -> Index:
    """Builds an index of vectors in a folder."""
    source = write_embeddings(folder / "e.parquet", vectors, **columns)
    return Index.build(source, folder / "index", IndexSettings(kind=kind), kb=kb)
