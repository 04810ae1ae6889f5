"""What `adapt` reads: a file of vectors, labels for them, texts of the entities.

Vectors: the output of `openmofi embed`, or an .npy [n, dim]; they stay float16 where they are so,
an .npy stays on disk. Labels: a CSV or Parquet file with one line per label; see `read_labels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.files.tables import read_csv, read_header
from openmofi.kb import KnowledgeBase
from openmofi.pairs.rows import pick_column

ID_COLUMNS = ("key", "id", "uid")
PATH_COLUMNS = ("path", "file", "file_name", "image_path")
LABEL_COLUMNS = ("label", "entity_id", "entity", "class", "class_id", "entities")
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
    if not path.is_file():
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
    vectors = np.empty((file.metadata.num_rows, kind.list_size), kind.value_type.to_pandas_dtype())
    start = 0
    for batch in file.iter_batches(_CHUNK, columns=["vector"]):
        flat = batch.column(0).flatten().to_numpy(zero_copy_only=False)
        vectors[start : start + len(batch)] = flat.reshape(len(batch), -1)
        start += len(batch)
    others = file.read([name for name in schema.names if name != "vector"])
    model = (schema.metadata or {}).get(b"openmofi.model", b"").decode()
    return Cached(path, vectors, others, model)


def read_labels(cached: Cached, path: Path | str | None) -> tuple[list[list[str]], dict[str, int]]:
    """Returns each vector's labels, the first one its target, and what was dropped why.

    An image with several labels has several lines, or a list in Parquet. For a Parquet file of
    vectors, a line names its image by key | id | uid (the vectors' id) or path | file |
    file_name | image_path (their path), and its label by label | entity_id | entity | class |
    class_id | entities; keys that repeat among shards need a column shard as well. For an .npy
    file, line i belongs to vector i, and the label may also be in id.

    Raises:
        InputError: the file or a column is missing, or its lines fit no vector.
    """
    count = len(cached.vectors)
    if path is None:
        table = cached.table
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
        return given, _without(given)
    table = read_table(Path(path))
    columns = LABEL_COLUMNS if cached.table is not None else (*LABEL_COLUMNS, "id")
    name = pick_column(table.column_names, columns)
    if name is None:
        raise _no_column(path, table, "a label", columns)
    labels = _lists(table[name])
    if cached.table is None:
        if len(table) != count:
            raise InputError(
                f"{str(path)!r} has {len(table):,} lines for the {count:,} vectors in "
                f"{str(cached.file)!r}; expected one per vector, in their order."
            )
        return labels, _without(labels)
    return _joined(cached, cached.table, table, labels, path)


def _joined(
    cached: Cached, vectors: pa.Table, table: pa.Table, labels: list[list[str]], path: Path | str
) -> tuple[list[list[str]], dict[str, int]]:
    """Returns the labels of each vector, found by the images' names."""
    name = pick_column(table.column_names, (*ID_COLUMNS, *PATH_COLUMNS))
    if name is None:
        raise _no_column(path, table, "the image", (*ID_COLUMNS, *PATH_COLUMNS))
    own = "id" if name in ID_COLUMNS else "path"
    keys = [table[name].cast(pa.string()).to_pylist()]
    places = [vectors[own].to_pylist()]
    if "shard" in table.column_names:
        keys.append(table["shard"].to_pylist())
        places.append(vectors["shard"].to_pylist())
    by_key: dict[tuple, list[str]] = {}
    for key, found in zip(zip(*keys, strict=True), labels, strict=True):
        by_key.setdefault(key, []).extend(found)
    rows = list(zip(*places, strict=True))
    matched = Counter(row for row in rows if row in by_key)
    if not matched:
        raise InputError(
            f"No {name} in {str(path)!r}, such as {keys[0][0]!r}, is an image of "
            f"{str(cached.file)!r}, whose {own} is such as {places[0][0]!r}."
        )
    twice = next((row for row, count in matched.items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"{twice[0]!r} is the {own} of {matched[twice]} vectors in {str(cached.file)!r}; name "
            f"the shard, too, in a column shard of {str(path)!r}."
        )
    given = [list(dict.fromkeys(by_key.get(row, []))) for row in rows]
    unknown = len(by_key) - len(matched)
    return given, _without(given) | ({"label_without_vector": unknown} if unknown else {})


def _without(labels: list[list[str]]) -> dict[str, int]:
    bare = sum(not found for found in labels)
    return {"no_label": bare} if bare else {}


def read_table(path: Path) -> pa.Table:
    """Returns a CSV (all columns as text) or Parquet file.

    Raises:
        InputError: it is missing, empty or damaged.
    """
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}; expected a .csv or .parquet file.")
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{str(path)!r} is not a readable table: {first}.") from None
    if not len(table):
        raise InputError(f"{str(path)!r} holds no lines; expected a head and at least one.")
    return table


def _read_csv(path: Path) -> pa.Table:
    """Returns all columns as text, or the id 007 would become 7."""
    columns: dict[str, list[str]] = {name: [] for name in read_header(path)[0]}
    for row in read_csv(path):
        if row.refused or len(row.fields) < len(columns):
            few = f"{len(row.fields)} of {len(columns)} values"
            why = row.refused.reason if row.refused else few
            raise InputError(f"{str(path)!r} is not a readable table: {why} in line {row.line}.")
        for name, value in row.fields.items():
            columns[name].append(value)
    return pa.table(columns)


def _lists(column: pa.ChunkedArray) -> list[list[str]]:
    """Returns a column of texts, numbers or lists of them as lists of texts."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        rows = column.to_pylist()
        return [
            list(dict.fromkeys(str(v) for v in row or [] if v not in ("", None))) for row in rows
        ]
    texts = pc.fill_null(column.cast(pa.string()), "").to_pylist()
    return [[text] if text else [] for text in texts]


def _no_column(path: Path | str, table: pa.Table, what: str, columns: Sequence[str]) -> InputError:
    return InputError(
        f"{str(path)!r} has the columns {', '.join(table.column_names)}; expected {what} in one of "
        f"{', '.join(columns)}."
    )


def read_texts(
    ids: Sequence[str], *, texts: Path | str | None, kb: Path | str | None
) -> tuple[list[str], list[str]] | None:
    """Returns (names, descriptions) of entities, "" where unknown, or None without a source.

    Args:
        ids: of the entities.
        texts: a table with the columns id | entity_id | class_id | label, name, description.
        kb: a knowledge base.

    Raises:
        InputError: a column is missing, or none of the ids is known there.
    """
    if texts is not None:
        known = _texts_of(Path(texts))
    elif kb is not None:
        base = KnowledgeBase.open(Path(kb))
        rows = {entity: base.row_of(entity) for entity in ids}
        known = {
            e: (base.texts.label[row].as_py(), base.texts.description[row].as_py())
            for e, row in rows.items()
            if row is not None
        }
    else:
        return None
    if not any(entity in known for entity in ids):
        raise InputError(
            f"{str(texts or kb)!r} knows none of the labels, such as {ids[0]!r}; "
            "expected their ids."
        )
    pairs = [known.get(entity, ("", "")) for entity in ids]
    return [name for name, _ in pairs], [text for _, text in pairs]


def _texts_of(path: Path) -> dict[str, tuple[str, str]]:
    table = read_table(path)
    key = pick_column(table.column_names, ("id", "entity_id", "class_id", "label"))
    if key is None or "name" not in table.column_names:
        raise _no_column(path, table, "name, and the id", ("id", "entity_id", "class_id", "label"))
    columns = [table[key], table["name"]]
    columns.append(table["description"] if "description" in table.column_names else table["name"])
    rows = [pc.fill_null(column.cast(pa.string()), "").to_pylist() for column in columns]
    described = "description" in table.column_names
    return {
        entity: (name, text if described else "") for entity, name, text in zip(*rows, strict=True)
    }
