"""What `adapt` reads: a file of vectors, and labels for them.

Vectors: the output of `openmofi embed`, or an .npy [n, dim]; they stay float16 where they are so,
an .npy stays on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.embeddings import finished_files, say_missing
from openmofi.errors import InputError
from openmofi.shards import is_job
from openmofi.train.labels import LABEL_COLUMNS, join_labels, read_label_column, without_label

_CHUNK = 65_536


@dataclass(frozen=True)
class Cached:
    """Vectors, and what their file knows of them."""

    file: Path
    vectors: np.ndarray
    """[n, dim], float16 or float32."""
    table: pa.Table | None
    """The other columns of a Parquet file, row by row."""
    model: str
    """Name of the encoder, or "" if the file does not tell."""


def read_cached(path: Path | str) -> Cached:
    """Opens a file of vectors.

    Raises:
        InputError: it is missing, empty, in neither format, or holds NaN or infinity.
    """
    path = Path(path)
    if not path.is_file() and not is_job(path):
        raise InputError(f"There is no file {str(path)!r}; make it with `openmofi embed`.")
    cached = _read_npy(path) if path.suffix == ".npy" else _read_parquet(path)
    if not len(cached.vectors):
        raise InputError(f"{str(path)!r} holds no vectors; make it with `openmofi embed`.")
    bad = sum(
        int((~np.isfinite(cached.vectors[start : start + _CHUNK]).all(1)).sum())
        for start in range(0, len(cached.vectors), _CHUNK)
    )
    if bad:
        raise InputError(
            f"{bad:,} of the {len(cached.vectors):,} vectors in {str(path)!r} hold NaN or "
            "infinity; leave them out."
        )
    return cached


def _read_npy(path: Path) -> Cached:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{str(path)!r} is not a readable .npy file: {error}.") from None
    if vectors.ndim != 2 or vectors.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{str(path)!r} holds {vectors.dtype} of shape {vectors.shape}; expected floats "
            "[number of images, dim]."
        )
    return Cached(path, vectors, None, "")


def _read_parquet(path: Path) -> Cached:
    """Reads a file, or the files of a folder that `embed` wrote."""
    say_missing(path)
    tables = [_open_parquet(file) for file in (finished_files(path) if is_job(path) else [path])]
    kind = tables[0].schema_arrow.field("vector").type
    count = sum(table.metadata.num_rows for table in tables)
    vectors = np.empty((count, kind.list_size), kind.value_type.to_pandas_dtype())
    start, others = 0, []
    for table in tables:
        for batch in table.iter_batches(_CHUNK, columns=["vector"]):
            flat = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            vectors[start : start + len(batch)] = flat.reshape(len(batch), -1)
            start += len(batch)
        others.append(table.read([n for n in table.schema_arrow.names if n != "vector"]))
    model = (tables[0].schema_arrow.metadata or {}).get(b"openmofi.model", b"").decode()
    return Cached(path, vectors, pa.concat_tables(others), model)


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{str(path)!r} is not a readable Parquet or .npy file: {error}."
        ) from None
    schema = file.schema_arrow
    kind = schema.field("vector").type if "vector" in schema.names else pa.null()
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise InputError(
            f"{str(path)!r} has no column of vectors; pass the output of `openmofi embed`, or an "
            ".npy file."
        )
    return file


def read_labels(cached: Cached, path: Path | str | None) -> tuple[list[list[str]], dict[str, int]]:
    """Returns each vector's labels, the first one its target, and what was dropped why.

    Without a file they are the entities that the file of vectors names. For an .npy, line i belongs
    to vector i, and the label may also be in id; otherwise see `join_labels`.

    Raises:
        InputError: the file or a column is missing, or its lines fit no vector.
    """
    count, table = len(cached.vectors), cached.table
    if path is None:
        if table is None or "entities" not in table.column_names:
            raise InputError(
                f"{str(cached.file)!r} names no entities; pass --labels FILE with a label per "
                "image."
            )
        given = [[e for e in entities or [] if e] for entities in table["entities"].to_pylist()]
        if not any(given):
            raise InputError(
                f"{str(cached.file)!r} carries no entities; pass --labels FILE, or embed the "
                "output of `openmofi select`."
            )
        return given, without_label(given)
    if table is not None:
        return join_labels(table, Path(path), source=cached.file)
    _, labels = read_label_column(Path(path), (*LABEL_COLUMNS, "id"))
    if len(labels) != count:
        raise InputError(
            f"{str(path)!r} has {len(labels):,} lines for the {count:,} vectors in "
            f"{str(cached.file)!r}; expected one per vector, in their order."
        )
    return labels, without_label(labels)
