"""Vectors of any origin -> rows of schema.embeddings and float32 [n, dim].

Reads what `openmofi embed` (a file, or a folder of shards) and `index export` write; Parquet or
Feather files with a column of vectors, as pandas, polars and DuckDB write them; and .npy files:
alone, next to a Parquet file of their rows, or in the folders of clip-retrieval (img_emb/,
metadata/), autofaiss and embedding-reader. A row without a vector is left out; the others keep
their numbers.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq
from jaxtyping import Float

from openmofi import schema
from openmofi.errors import InputError
from openmofi.shards import commits_of, is_job, planned_shards

_VECTORS = (
    *("vector", "embedding", "embeddings", "emb", "image_embedding", "image_emb", "img_emb"),
    *("clip_embedding", "feature", "features", "values"),
)
"""Names that a column of vectors may have, the likeliest first."""
_ALSO = {
    "id": ("key", "uid", "image_id", "image_path", "path", "file_name", "filename", "url"),
    "path": ("image_path", "file_name", "filename"),
    "caption": ("text", "title"),
}
"""Other names of columns of schema.embeddings, by column."""
_NUMPY_FOLDERS = ("img_emb", "embeddings", "text_emb")
_FEATHER = (".feather", ".arrow")
_TABLES = (".parquet", *_FEATHER)
_BATCH = 16_384
"""Rows that are read at a time."""


@dataclass(frozen=True)
class Embeddings:
    """Rows, their vectors, and the number of rows left out, by reason."""

    rows: pa.Table
    """schema.embeddings without `vector`, null where unknown; other columns are kept."""
    vectors: Float[np.ndarray, "n dim"]
    refused: dict[str, int]


def read_embeddings(path: Path | str) -> Embeddings:
    """Returns the vectors of a file, or of a folder of files in the order of their numbers.

    Rows without an id are numbered from 0 across all files.

    Raises:
        InputError: there are no vectors, or they differ in length.
    """
    batches = list(embedding_batches(path))
    tables = [batch.rows for batch in batches]
    rows = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
    refused = sum((Counter(batch.refused) for batch in batches), Counter())
    vectors = np.concatenate([batch.vectors for batch in batches if len(batch.rows)])
    return Embeddings(rows, vectors, dict(refused))


def embedding_batches(path: Path | str) -> Iterator[Embeddings]:
    """Yields what `read_embeddings` returns, some thousand rows at a time.

    Raises:
        InputError: there are no vectors, or they differ in length.
    """
    path, begin, dim, found = Path(path), 0, None, False
    say_missing(path)
    for file, beside in _existing_files(path):
        for batch in _read_file(file, beside, begin):
            if len(batch.rows):
                if dim is not None and batch.vectors.shape[1] != dim:
                    raise InputError(
                        f"{str(file)!r} holds vectors of {batch.vectors.shape[1]} numbers, the "
                        f"files before it of {dim}."
                    )
                found, dim = True, batch.vectors.shape[1]
                yield batch
            elif batch.refused:
                yield batch
            begin += len(batch.rows) + sum(batch.refused.values())
    if not found:
        raise InputError(f"{str(path)!r} holds no vectors; make it with `openmofi embed`.")


def count_rows(path: Path | str) -> int:
    """Returns the number of rows of a file or folder, those without a vector included.

    Raises:
        InputError: a file cannot be read.
    """
    return sum(_length(file) for file, _ in _existing_files(Path(path)))


def _existing_files(path: Path) -> list[tuple[Path, Path | None]]:
    if not path.exists():
        raise InputError(f"There is no file {str(path)!r}; make it with `openmofi embed`.")
    return _files(path)


def _files(path: Path) -> list[tuple[Path, Path | None]]:
    """Returns the files of vectors, each with the Parquet file of its rows if it has one."""
    if path.is_file():
        beside = path.with_suffix(".parquet")
        return [(path, beside if path.suffix == ".npy" and beside.is_file() else None)]
    if is_job(path):
        return [(file, None) for file in finished_files(path)]
    folder = next((path / name for name in _NUMPY_FOLDERS if (path / name).is_dir()), path)
    arrays = _sorted(folder, ".npy")
    if not arrays:
        tables = _sorted(path, *_TABLES)
        if not tables:
            raise InputError(
                f"{str(path)!r} holds no vectors: expected .npy, .parquet or .feather files, or "
                "clip-retrieval's img_emb and metadata (of a faiss index, give the vectors that "
                "it was built from)."
            )
        return [(table, None) for table in tables]
    beside = path if folder != path else path.parent
    places = [beside / "metadata"] * (folder.name in _NUMPY_FOLDERS)
    for place in [*places, path / "metadata", folder]:
        metadata = _sorted(place, ".parquet")
        if len(metadata) == len(arrays):
            return list(zip(arrays, metadata, strict=True))
        if metadata:
            raise InputError(
                f"{str(folder)!r} holds {len(arrays)} .npy files, but {str(place)!r} "
                f"{len(metadata)} Parquet files; expected one for each."
            )
    return [(array, None) for array in arrays]


def finished_files(job: Path) -> list[Path]:
    """Returns the tables of the finished shards of an output folder of `embed`.

    Raises:
        InputError: there are none, or they are labels.
    """
    return [job / commit.file for commit in commits_of(job, "vectors")]


def say_missing(path: Path) -> None:
    """Tells how many shards of an output folder of `embed` are not finished, if any."""
    left = planned_shards(path) - len(finished_files(path)) if is_job(path) else 0
    if left:
        print(f"{path}: {left:,} shards have no vectors; see `openmofi status`", file=sys.stderr)


def _sorted(folder: Path, *suffixes: str) -> list[Path]:
    """Returns a folder's files in natural order: part_2 before part_10, a digit before a letter."""

    def natural(file: Path) -> list[tuple[float, str]]:
        runs = re.findall(r"(\d+)|(\D+)", file.name)
        return [(int(digits), "") if digits else (math.inf, text) for digits, text in runs]

    if not folder.is_dir():
        return []
    files = [f for f in folder.iterdir() if f.suffix in suffixes and not f.name.startswith(".")]
    return sorted(files, key=natural)


def _read_file(file: Path, beside: Path | None, begin: int) -> Iterator[Embeddings]:
    """Yields the rows of a file that have a vector; they are numbered from `begin`."""
    if file.suffix == ".npy":
        stored = _load(file)
        table = _read_table(beside) if beside else None
        if table is not None and len(table) != len(stored):
            raise InputError(
                f"{str(file)!r} holds {len(stored):,} vectors, but {str(beside)!r} "
                f"{len(table):,} rows; expected one for each."
            )
        for start in range(0, len(stored), _BATCH):
            vectors = np.asarray(stored[start : start + _BATCH], np.float32)
            numbers = _numbers(len(vectors), begin + start)
            rows = table.slice(start, _BATCH) if table is not None else pa.table({"id": numbers})
            yield Embeddings(_as_rows(rows, begin + start), vectors, {})
        return
    name, dim, start = _vector_column(file, _schema(file)), None, 0
    for table in _tables(file):
        vectors, has_vector = _vectors(file, name, table[name], start, dim)
        rows = _as_rows(table.drop_columns([name]), begin + start)
        lost = int((~has_vector).sum())
        refused = {"no_vector": lost} if lost else {}
        yield Embeddings(rows.filter(pa.array(has_vector)), vectors, refused)
        dim = vectors.shape[1] if len(vectors) else dim
        start += len(table)


def _load(file: Path) -> np.ndarray:
    """Maps the array of a .npy file into memory."""
    try:
        stored = np.load(file, allow_pickle=False, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{str(file)!r} is not a readable .npy file: {error}.") from None
    if stored.ndim != 2 or stored.dtype.kind not in "fiu":
        raise InputError(
            f"{str(file)!r} holds {stored.dtype} of shape {stored.shape}; expected numbers of "
            "shape (vectors, dim)."
        )
    return stored


def _length(file: Path) -> int:
    if file.suffix == ".npy":
        return len(_load(file))
    if file.suffix in _FEATHER:
        return len(_read_table(file))
    with _readable(file):
        return pq.ParquetFile(file).metadata.num_rows


def _schema(file: Path) -> pa.Schema:
    if file.suffix in _FEATHER:
        return _read_table(file).schema
    with _readable(file):
        return pq.ParquetFile(file).schema_arrow


def _tables(file: Path) -> Iterator[pa.Table]:
    """Yields the rows of a Parquet or Feather file, some thousand at a time."""
    if file.suffix in _FEATHER:
        whole = _read_table(file)
        for start in range(0, len(whole), _BATCH):
            yield whole.slice(start, _BATCH)
        return
    with _readable(file):
        # Read page by page: else the whole file would be in memory in the end.
        read = pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20)
        for batch in read.iter_batches(_BATCH):
            yield pa.Table.from_batches([batch])


def _read_table(file: Path) -> pa.Table:
    with _readable(file):
        if file.suffix in _FEATHER:
            return feather.read_table(file, memory_map=True)
        return pq.ParquetFile(file).read()


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Turns the errors of reading a damaged file into an InputError."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{str(file)!r} is not a readable Parquet file: {error}.") from None


def _vector_column(file: Path, columns: pa.Schema) -> str:
    """Returns the name of the column of vectors: the likeliest name, or the only possible column.

    Raises:
        InputError: no column holds vectors, or several might.
    """
    by_name = {name.lower(): name for name in reversed(columns.names)}
    named = [by_name[name] for name in _VECTORS if name in by_name]
    possible = [name for name in columns.names if _item_type(columns.field(name).type)]
    found = [name for name in named if name in possible] or possible[:2]
    if len(found) == 1 or (found and found[0] in named):
        return found[0]
    if named:
        what = columns.field(named[0]).type
        raise InputError(
            f"{str(file)!r} has a column {named[0]!r} of {what}; expected a list of numbers in "
            "each row."
        )
    why = f"several columns may be vectors ({', '.join(possible)})" if possible else (
        "no column holds vectors"
    )  # fmt: skip
    raise InputError(
        f"In {str(file)!r} {why}; name it `vector`: a list of numbers in each row. "
        "`openmofi embed` makes such files of images."
    )


def _item_type(kind: pa.DataType) -> pa.DataType | None:
    """Returns the type of the numbers in a list type, or None if it is not a list of numbers."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(is_list(kind) for is_list in lists):
        return None
    number = pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    return kind.value_type if number else None


def _vectors(
    file: Path, name: str, column: pa.ChunkedArray, begin: int, dim: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vectors, float32 [n, dim], of the rows that have one; bool [rows]: which do).

    Args:
        file: named in errors.
        name: name of the column.
        column: lists of numbers.
        begin: number of the column's first row in the file.
        dim: width of the vectors before it, if there are any.
    """
    parts, masks, first = [], [], begin
    for chunk in column.chunks:
        chunk = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        whole = _whole(chunk)
        lists = chunk.filter(pa.array(whole))
        lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
        if dim is None and len(lengths):
            dim = int(lengths[0])
        for wrong in np.flatnonzero(lengths != dim)[:1]:
            row = begin + int(np.flatnonzero(whole)[wrong])
            raise InputError(
                f"{str(file)!r} holds vectors of unequal length: row {row:,} of {name!r} has "
                f"{lengths[wrong]} numbers, the first one {dim}."
            )
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        parts.append(flat.reshape(len(lists), dim or 0))
        masks.append(whole)
        begin += len(chunk)
    if dim is None:
        return np.zeros((0, 0), np.float32), np.zeros(begin - first, bool)
    if not dim:
        raise InputError(f"The vectors of {str(file)!r} are empty.")
    whole_parts = [part for part in parts if part.size] or [np.zeros((0, dim), np.float32)]
    return np.concatenate(whole_parts), np.concatenate(masks)


def _whole(lists: pa.Array) -> np.ndarray:
    """Returns for each list whether it is complete: neither it nor any of its numbers is null."""
    whole = lists.is_valid().to_numpy(zero_copy_only=False)
    present = lists.filter(pa.array(whole))
    if present.flatten().null_count:
        missing = pc.list_parent_indices(present).filter(present.flatten().is_null())
        places = np.flatnonzero(whole)[missing.unique().to_numpy(zero_copy_only=False)]
        whole = whole.copy()
        whole[places] = False
    return whole


def _numbers(count: int, begin: int) -> pa.Array:
    return pa.array(np.arange(begin, begin + count)).cast(pa.string())


def _as_rows(table: pa.Table, begin: int) -> pa.Table:
    """Returns a table with all columns of schema.embeddings, null where unknown, and its others."""
    for field in schema.embeddings(1):
        if field.name == "vector":
            continue
        names = [field.name, *_ALSO.get(field.name, ())]
        columns = list(_cast(table, names, field.type))
        column = columns[0] if columns else pa.nulls(len(table), field.type)
        if field.name == "entities" and column.null_count:
            column = pa.chunked_array([[names or [] for names in column.to_pylist()]], field.type)
        if field.name == "id" and column.null_count:
            column = pc.coalesce(column, _numbers(len(table), begin))
        if field.name in table.column_names:
            place = table.column_names.index(field.name)
            table = table.set_column(place, field.name, column)
        else:
            table = table.append_column(field.name, column)
    return table


def _cast(table: pa.Table, names: Sequence[str], kind: pa.DataType) -> Iterator[pa.ChunkedArray]:
    """Yields the columns with these names that can be cast to the type."""
    for name in names:
        if name not in table.column_names:
            continue
        column = table[name]
        try:
            yield column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if kind == pa.string():  # such as a UUID
                yield pa.chunked_array([[v if v is None else str(v) for v in column.to_pylist()]])
