"""Parquet files with captions and image bytes, or paths of images -> schema.PAIRS."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.pairs.caption import check_caption
from openmofi.schema import PAIRS

CAPTION_COLUMNS = ("caption", "text", "TEXT", "alt", "title")
IMAGE_COLUMNS = ("image", "jpg", "img", "bytes")
PATH_COLUMNS = ("file", "file_name", "image_path", "path")
KEY_COLUMNS = ("key", "id", "uid")


def pick_column(names: list[str], wanted: tuple[str, ...]) -> str | None:
    """Returns the first wanted column that exists."""
    return next((name for name in wanted if name in names), None)


def read_parquet(path: Path, name: str) -> tuple[pa.Table, str | None]:
    """Returns (pairs in file order, None).

    Raises:
        InputError: it is no Parquet file, or lacks a caption or an image column.
    """
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(path)!r} is not a readable Parquet file: {error}.") from None
    names = schema.names
    caption, key = pick_column(names, CAPTION_COLUMNS), pick_column(names, KEY_COLUMNS)
    image, file = pick_column(names, IMAGE_COLUMNS), pick_column(names, PATH_COLUMNS)
    if image is not None and schema.field(image).type in (pa.string(), pa.large_string()):
        image, file = None, image  # names of files under a name that promises bytes
    if caption is None or (image is None and file is None):
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names)}; expected a caption "
            f"({' | '.join(CAPTION_COLUMNS)}) and an image ({' | '.join(IMAGE_COLUMNS)}) or a "
            f"path ({' | '.join(PATH_COLUMNS)})."
        )
    wanted = [column for column in (caption, key, "url", None if image else file) if column]
    table = pq.read_table(path, columns=[column for column in wanted if column in names])
    rows = []
    for number, row in enumerate(table.to_pylist()):
        text, error = check_caption(row[caption])
        if not image and row[file] is None:
            error = "image_missing"
        rows.append(
            {
                "key": str(row[key]) if key else f"{Path(name).stem}-{number:09d}",
                "shard": name,
                "offset": -1,
                "size": 0,
                "path": f"row:{number}" if image else str(Path(name).parent / str(row[file])),
                "caption": text,
                "url": str(row.get("url") or ""),
                "status": "error" if error else "ok",
                "error": error,
            }
        )
    return pa.Table.from_pylist(rows, schema=PAIRS), None


def read_image_cell(path: Path, row: int) -> bytes:
    """Returns the image bytes of one row.

    Raises:
        OSError: the cell is empty.
    """
    group, start = _row_group(path, row)
    try:
        value = _images(path, group)[row - start].as_py()
    except pa.ArrowException as error:
        raise OSError(f"row group {group} of {path} cannot be read: {error}") from None
    if isinstance(value, dict):  # Hugging Face's Image feature: {"bytes", "path"}
        value = value.get("bytes")
    if not isinstance(value, bytes) or not value:
        raise OSError(f"row {row} of {path} has no image bytes")
    return value


def _row_group(path: Path, row: int) -> tuple[int, int]:
    """Returns (row group, its first row)."""
    start = 0
    for group, rows in enumerate(_row_group_sizes(path)):
        if row < start + rows:
            return group, start
        start += rows
    raise OSError(f"{path} has no row {row}")


@lru_cache(maxsize=1024)
def _row_group_sizes(path: Path) -> tuple[int, ...]:
    metadata = pq.read_metadata(path)
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


@lru_cache(maxsize=4)
def _images(path: Path, group: int) -> pa.ChunkedArray:
    with pq.ParquetFile(path) as file:
        column = pick_column(file.schema_arrow.names, IMAGE_COLUMNS)
        return file.read_row_group(group, columns=[column]).column(0)
