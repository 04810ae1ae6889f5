"""Labels that a user has for images, and texts of the entities that they name: CSV or Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.files.tables import read_csv, read_header
from openmofi.kb import KnowledgeBase
from openmofi.pairs.rows import pick_column
from openmofi.shards import commits, is_job
from openmofi.train.synthetic import CAPTIONS

ID_COLUMNS = ("key", "id", "uid")
PATH_COLUMNS = ("path", "file", "file_name", "image_path")
LABEL_COLUMNS = ("label", "entity_id", "entity", "class", "class_id", "entities")


def read_label_column(
    path: Path, columns: tuple[str, ...] = LABEL_COLUMNS
) -> tuple[pa.Table, list[list[str]]]:
    """Returns a table and the labels of its lines, which are in the first of the columns it has.

    Raises:
        InputError: the file or the column is missing.
    """
    table = read_table(path)
    name = pick_column(table.column_names, columns)
    if name is None:
        what = "a label" if columns[0] in LABEL_COLUMNS else columns[0]
        raise _no_column(path, table, what, columns)
    return table, _lists(table[name])


def join_labels(
    images: pa.Table,
    path: Path,
    *,
    source: Path,
    columns: tuple[str, ...] = LABEL_COLUMNS,
) -> tuple[list[list[str]], dict[str, int]]:
    """Returns each image's labels, the first one its target, and what was dropped why.

    An image with several labels has several lines, or a list in Parquet. A line names its image by
    key | id | uid or path | file | file_name | image_path, and its label by label | entity_id |
    entity | class | class_id | entities; keys that repeat among shards need a column shard.

    Args:
        images: columns id, path and shard.
        path: the labels.
        source: of the images, for messages.
        columns: other names of the column with the labels.

    Raises:
        InputError: the file or a column is missing, or its lines fit no image.
    """
    table, labels = read_label_column(path, columns)
    name = pick_column(table.column_names, (*ID_COLUMNS, *PATH_COLUMNS))
    if name is None:
        raise _no_column(path, table, "the image", (*ID_COLUMNS, *PATH_COLUMNS))
    own = "id" if name in ID_COLUMNS else "path"
    keys = [table[name].cast(pa.string()).to_pylist()]
    places = [images[own].to_pylist()]
    if "shard" in table.column_names:
        keys.append(table["shard"].to_pylist())
        places.append(images["shard"].to_pylist())
    by_key: dict[tuple, list[str]] = {}
    for key, found in zip(zip(*keys, strict=True), labels, strict=True):
        by_key.setdefault(key, []).extend(found)
    rows = list(zip(*places, strict=True))
    matched = Counter(row for row in rows if row in by_key)
    if not matched:
        raise InputError(
            f"No {name} in {str(path)!r}, such as {keys[0][0]!r}, is an image of "
            f"{str(source)!r}, whose {own} is such as {places[0][0]!r}."
        )
    twice = next((row for row, count in matched.items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"{twice[0]!r} is the {own} of {matched[twice]} images in {str(source)!r}; name "
            f"the shard, too, in a column shard of {str(path)!r}."
        )
    given = [list(dict.fromkeys(by_key.get(row, []))) for row in rows]
    unknown = len(by_key) - len(matched)
    return given, without_label(given) | ({"label_without_image": unknown} if unknown else {})


def without_label(labels: list[list[str]]) -> dict[str, int]:
    """Returns how many images have none, as a reason and a count."""
    bare = sum(not found for found in labels)
    return {"no_label": bare} if bare else {}


def read_table(path: Path) -> pa.Table:
    """Returns a CSV (all columns as text) or Parquet file, or the tables of a finished job.

    Raises:
        InputError: it is missing, empty, damaged or unfinished.
    """
    if not is_job(path) and not path.is_file():
        raise InputError(f"There is no file {str(path)!r}; expected a .csv or .parquet file.")
    try:
        if is_job(path):
            return _read_job(path)
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{str(path)!r} is not a readable table: {first}.") from None
    if not len(table):
        raise InputError(f"{str(path)!r} holds no lines; expected a head and at least one.")
    return table


def _read_job(path: Path) -> pa.Table:
    done = commits(path)
    total = pq.read_metadata(path / "plan.parquet").num_rows
    if len(done) < total or any(not commit.file for commit in done):
        raise InputError(
            f"The job in {str(path)!r} is not finished; repeat the command that began it."
        )
    # An imported teacher's captions lie beside its vectors.
    files = (commit.extra.get(CAPTIONS, commit.file) for commit in done)
    return pa.concat_tables(pq.read_table(path / file) for file in files)


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
