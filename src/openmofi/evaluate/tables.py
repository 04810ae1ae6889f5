"""Tables with images and their labels or captions -> evaluation data.

Parquet files (data/test-00000-of-00001.parquet, as on the Hugging Face Hub) and folders saved by
`datasets` (save_to_disk). The split test, else validation, is evaluated; train is the gallery.
Files whose names tell no split are evaluated whole. Images are not read here.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.embed import Places
from openmofi.errors import InputError
from openmofi.evaluate.data import (
    LABEL_COLUMNS,
    TEST_SPLITS,
    CaptionedImages,
    LabelledImages,
)
from openmofi.files.hidden import is_hidden
from openmofi.pairs.arrow import SPLITS, STATE, dataset_files, open_arrow
from openmofi.pairs.rows import (
    IMAGE_COLUMNS,
    PATH_COLUMNS,
    image_columns,
    image_paths,
    pick_column,
)

CAPTION_COLUMNS = ("caption", "captions", "sentences", "text", "texts")
_SPLIT = re.compile(rf"(train|{'|'.join(TEST_SPLITS)})([-_.]|$)", re.IGNORECASE)
_DEPTH = 2


@dataclass(frozen=True)
class Table:
    """The files of one split; they have the same columns."""

    root: Path
    files: tuple[Path, ...]

    def schema(self) -> pa.Schema:
        """Returns the first file's schema."""
        return _schema(self.files[0])

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Returns the given columns of all rows, in the order of `places`.

        Raises:
            InputError: a file is damaged or lacks a column.
        """
        return pa.concat_tables([_read(file, columns) for file in self.files])

    def places(self) -> Places:
        """Returns where the images of all rows are."""
        counts = [
            len(open_arrow(f)[0]) if f.suffix == ".arrow" else pq.read_metadata(f).num_rows
            for f in self.files
        ]
        shards = [file.relative_to(self.root).as_posix() for file in self.files]
        rows = np.concatenate([np.arange(count) for count in counts])
        shard = np.repeat(np.array(shards, dtype=object), counts)
        image, file = image_columns(self.schema())
        if image is None and file is not None:
            parts = zip(self.files, shards, strict=True)
            columns = (image_paths(_read(part, [file])[file], name) for part, name in parts)
            paths = [path for column in columns for path in column.to_pylist()]
        else:
            paths = [f"row:{row}" for row in rows]
        keys = [f"{Path(s).stem}-{row:09d}" for s, row in zip(shard, rows, strict=True)]
        columns = {
            "key": pa.array(keys, pa.string()),
            "shard": pa.array(shard, pa.string()),
            "path": pa.array(paths, pa.string()),
            "offset": pa.array(np.full(len(rows), -1)),
            "size": pa.array(np.zeros(len(rows), np.int64)),
            "caption": pa.array([""] * len(rows), pa.string()),
            "entities": pa.array([[]] * len(rows), pa.list_(pa.string())),
        }
        return Places(pa.table(columns), self.root, {})


def is_table(path: Path | str) -> bool:
    """Returns whether a path is such a file or folder."""
    return bool(find_tables(path))


def open_table(path: Path | str) -> LabelledImages | CaptionedImages | None:
    """Opens such a file or folder; None if it is neither.

    Raises:
        InputError: there is no column of images, or none of labels or captions; a label is
            missing; the splits name their classes differently; or there are only splits that are
            not evaluated.
    """
    path = Path(path)
    splits = find_tables(path)
    if not splits:
        return None
    name = next((name for name in (*TEST_SPLITS, "") if name in splits), None)
    if name is None:
        raise InputError(
            f"{str(path)!r} has only the split {', '.join(splits)}; expected one of "
            f"{', '.join(TEST_SPLITS)}, or pass the file or folder to evaluate."
        )
    table, schema = splits[name], splits[name].schema()
    label = pick_column(schema.names, LABEL_COLUMNS)
    caption = pick_column(schema.names, CAPTION_COLUMNS)
    if not any(image_columns(schema)) or not (label or caption):
        expected = {"images": IMAGE_COLUMNS, "their files": PATH_COLUMNS}
        expected |= {"labels": LABEL_COLUMNS, "captions": CAPTION_COLUMNS}
        images, files, labels, captions = (
            f"{what} ({' | '.join(names)})" for what, names in expected.items()
        )
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(schema.names)}; expected {images} or "
            f"{files}, and {labels} or {captions}."
        )
    if label is None:
        return CaptionedImages(table.places(), _captions(table, str(caption)))
    test = _labelled(table, label)
    if "train" not in splits:
        return test
    gallery = _labelled(splits["train"], label)
    if dict(gallery.class_names) != dict(test.class_names):
        raise InputError(
            f"The splits in {str(table.root)!r} name their classes differently; expected the same "
            f"ClassLabel names of {label!r} in all of them."
        )
    return replace(test, gallery=gallery)


def find_tables(path: Path | str) -> dict[str, Table]:
    """Returns the tables at a path by split ("" without splits), or an empty dictionary.

    Raises:
        InputError: a split's files are in several folders, as with several configurations.
    """
    path = Path(path)
    if path.is_file():
        fits = path.suffix in (".parquet", ".arrow")
        return {"": Table(path.parent, (path,))} if fits else {}
    if (path / SPLITS).is_file() or (path / STATE).is_file():
        folders = [f for f in path.iterdir() if f.is_dir()] if (path / SPLITS).is_file() else []
        named = {f.name.lower(): dataset_files(f) for f in folders} or {"": dataset_files(path)}
        return {name: Table(path, tuple(files)) for name, files in named.items() if files}
    files = [file for depth in range(_DEPTH) for file in path.glob("*/" * depth + "*.parquet")]
    shown = [file for file in files if not is_hidden(file.relative_to(path).as_posix())]
    # A file belongs to the split that its name tells, else the innermost folder that tells one.
    splits: dict[str, list[Path]] = {}
    for file in sorted(shown):
        parts = reversed(file.relative_to(path).parts)
        found = next((match for part in parts if (match := _SPLIT.match(part))), None)
        splits.setdefault(found[1].lower() if found else "", []).append(file)
    if len(splits) > 1:
        splits.pop("", None)  # files of no split are not part of the benchmark
    for name, part in splits.items():
        folders = sorted({str(file.parent.relative_to(path)) for file in part})
        if len(folders) > 1:
            raise InputError(
                f"{str(path)!r} holds {name or 'Parquet'} files in several folders "
                f"({', '.join(folders)}); pass one of them."
            )
    return {name: Table(path, tuple(part)) for name, part in splits.items()}


def _labelled(table: Table, column: str) -> LabelledImages:
    schema = table.schema()
    if column not in schema.names:
        raise InputError(f"{str(table.files[0])!r} lacks the column {column!r} of other splits.")
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise InputError(
            f"{column!r} of {str(table.files[0])!r} has the type {kind}; expected a number or a "
            "text for each image."
        )
    names = _class_names(schema, column)
    values = table.read([column])[column].to_pylist()
    limit = len(names) or math.inf
    bad = [
        row
        for row, value in enumerate(values)
        if not (0 <= value < limit if isinstance(value, int) else value)
    ]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(values)} rows in {str(table.files[0].parent)!r} have no usable "
            f"{column}, the first is row {bad[0]} with {values[bad[0]]!r}; pass a split whose "
            "labels are published."
        )
    return LabelledImages(table.places(), tuple(map(str, values)), class_names=names)


def _class_names(schema: pa.Schema, column: str) -> Mapping[str, str]:
    """Returns {label: name} of a ClassLabel, as `datasets` describes it in the metadata."""
    try:
        stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = stated["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {str(i): str(name).replace("_", " ") for i, name in enumerate(names or [])}


def _captions(table: Table, column: str) -> tuple[tuple[str, ...], ...]:
    values = table.read([column])[column].to_pylist()
    texts = [[value] if isinstance(value, str) else value or [] for value in values]
    bad = [
        row
        for row, found in enumerate(texts)
        if not found or not all(isinstance(text, str) and text.strip() for text in found)
    ]
    if bad:
        raise InputError(
            f"{len(bad)} of {len(texts)} rows in {str(table.files[0].parent)!r} have no usable "
            f"{column}, the first is row {bad[0]}; expected a text or a list of texts."
        )
    return tuple(tuple(found) for found in texts)


def _schema(file: Path) -> pa.Schema:
    if file.suffix == ".arrow":
        return open_arrow(file)[0].schema
    try:
        return pq.read_schema(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(file)!r} is not a readable Parquet file: {error}.") from None


def _read(file: Path, columns: Sequence[str]) -> pa.Table:
    if missing := [name for name in columns if name not in _schema(file).names]:
        raise InputError(f"{str(file)!r} lacks the column {', '.join(missing)} of other files.")
    if file.suffix == ".parquet":
        try:
            return pq.read_table(
                file, columns=list(columns), partitioning=None
            ).replace_schema_metadata()
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{str(file)!r} cannot be read: {error}.") from None
    table, damage = open_arrow(file)
    if damage:
        raise InputError(f"{str(file)!r} ends early ({damage}); save or download it again.")
    return table.select(list(columns)).replace_schema_metadata()
