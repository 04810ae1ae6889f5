"""Tables with a caption and an image column, Parquet or Arrow -> schema.PAIRS."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.pairs.caption import CAPTION_COLUMNS
from openmofi.pairs.columns import (
    check_captions,
    pairs_table,
    plain_texts,
    prefixed,
    raw_texts,
)

IMAGE_COLUMNS = ("image", "jpg", "img", "bytes")
PATH_COLUMNS = ("file", "file_name", "image_path", "path")
KEY_COLUMNS = ("key", "id", "uid")


def pick_column(names: list[str], wanted: tuple[str, ...]) -> str | None:
    """Returns the first of the wanted columns that exists."""
    return next((name for name in wanted if name in names), None)


def image_columns(schema: pa.Schema) -> tuple[str | None, str | None]:
    """Returns the columns of (encoded images, file names), at least one of which is None."""
    image, file = (pick_column(schema.names, names) for names in (IMAGE_COLUMNS, PATH_COLUMNS))
    if image is not None and schema.field(image).type in (pa.string(), pa.large_string()):
        return None, image  # file names in a column that is named after images
    return image, None if image else file


def image_paths(files: pa.ChunkedArray, name: str) -> pa.Array:
    """Returns the paths of files relative to the input's root.

    Args:
        files: names relative to the table's folder, or absolute, or null.
        name: path of the table relative to the root.
    """
    folder = "" if (at := str(PurePosixPath(name).parent)) == "." else f"{at}/"
    names = plain_texts(files.cast(pa.large_string()), len(files))
    return pc.if_else(pc.starts_with(names, "/"), names, prefixed(folder, names))


class RowColumns:
    """The columns of a table and their roles."""

    def __init__(self, path: Path, schema: pa.Schema):
        """Finds the columns.

        Raises:
            InputError: there is no caption or no image column.
        """
        names = schema.names
        self.caption = pick_column(names, CAPTION_COLUMNS)
        self.key = pick_column(names, KEY_COLUMNS)
        self.url = "url" if "url" in names else None
        self.image, self.file = image_columns(schema)
        if self.caption is None or not (self.image or self.file):
            raise InputError(
                f"{str(path)!r} has the columns {', '.join(names)}; expected a caption "
                f"({' | '.join(CAPTION_COLUMNS)}) and an image ({' | '.join(IMAGE_COLUMNS)}) or a "
                f"path ({' | '.join(PATH_COLUMNS)})."
            )

    @property
    def wanted(self) -> list[str]:
        """The columns that are read first, all except the images."""
        named = (self.caption, self.key, self.url, self.file)
        return list(dict.fromkeys(name for name in named if name))

    def pairs(self, table: pa.Table, name: str, start: int) -> pa.Table:
        """Returns schema.PAIRS, given the wanted columns of the rows of a file from `start` on."""
        captions, errors = check_captions(raw_texts(table[self.caption]))
        if self.file is None:
            path = _counted("row:", start, len(table))
        else:
            errors = pc.if_else(pc.is_null(table[self.file]), "image_missing", errors)
            path = image_paths(table[self.file], name)
        return pairs_table(
            key=self._keys(table, name, start),
            shard=name,
            path=path,
            caption=captions,
            url=plain_texts(table[self.url], len(table)) if self.url else None,
            error=errors,
        )

    def _keys(self, table: pa.Table, name: str, start: int) -> Any:
        rows = _counted(f"{PurePosixPath(name).stem}-", start, len(table), digits=9)
        if self.key is None:
            return rows
        found = table[self.key]
        return pc.if_else(pc.is_null(found), rows, plain_texts(found, len(table)))


def _counted(prefix: str, start: int, rows: int, digits: int = 0) -> pa.Array:
    numbers = pa.array(np.arange(start, start + rows)).cast(pa.large_string())
    if digits:
        numbers = pc.utf8_lpad(numbers, digits, "0")
    return prefixed(prefix, numbers)


def image_bytes(cell: pa.Scalar, place: str, folder: Path | None) -> bytes:
    """Returns the encoded image in a cell.

    Args:
        cell: bytes, or Hugging Face's Image feature: {"bytes", "path"}.
        place: name of the cell in an error.
        folder: root of a path if there are no bytes; None: files cannot be read.

    Raises:
        OSError: the cell is empty, or its file is gone.
    """
    value = cell.as_py()
    if isinstance(value, dict):
        file, value = value.get("path"), value.get("bytes")
        if not value and file and folder is not None:
            return (folder / file).read_bytes()
    if not isinstance(value, bytes) or not value:
        raise OSError(f"{place} has no image bytes")
    return value
