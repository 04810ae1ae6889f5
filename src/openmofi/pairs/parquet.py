"""Parquet files with captions and image bytes, or paths of images -> schema.PAIRS."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.pairs.rows import IMAGE_COLUMNS, RowColumns, image_bytes, pick_column


def read_parquet(
    path: Path, name: str, start: int = 0, stop: int | None = None
) -> tuple[pa.Table, None]:
    """Returns (pairs of some rows in file order, None since a truncated file cannot be read).

    Raises:
        InputError: the file is not a Parquet file, or lacks a caption or an image column.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = RowColumns(path, file.schema_arrow)
            starts = _ends(file.metadata)
            last = starts[-1] if stop is None else stop
            spans = enumerate(pairwise(starts))
            groups = [group for group, (begin, end) in spans if begin < last and end > start]
            table = file.read_row_groups(groups, columns=columns.wanted, use_threads=False)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(path)!r} is not a readable Parquet file: {error}.") from None
    first = starts[groups[0]] if groups else start
    length = None if stop is None else stop - start
    return columns.pairs(table.slice(start - first, length), name, start), None


def _ends(metadata: Any) -> list[int]:
    """Returns 0 and the row behind the last of each row group."""
    sizes = (metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return [0, *accumulate(sizes)]


def row_group_ends(path: Path) -> list[int]:
    """Returns the row behind the last of each row group; [] if the file cannot be read."""
    try:
        return _ends(pq.read_metadata(path))[1:]
    except (pa.ArrowInvalid, OSError):
        return []


class ParquetImages:
    """Image cells of a Parquet file by row; the last two row groups are cached."""

    def __init__(self, source: Any, place: str):
        self.place = place
        self._folder = source.parent if isinstance(source, Path) else None
        self._file = pq.ParquetFile(source, pre_buffer=False)
        self._column = pick_column(self._file.schema_arrow.names, IMAGE_COLUMNS)
        self._starts = _ends(self._file.metadata)
        self._group = lru_cache(maxsize=2)(self._read_group)

    def read(self, row: int) -> bytes:
        """Returns the image bytes of one row.

        Raises:
            OSError: there is no such row, its cell is empty, or it cannot be read.
        """
        group = bisect_right(self._starts, row) - 1
        if not 0 <= group < len(self._starts) - 1:
            raise OSError(f"{self.place} has no row {row}")
        try:
            cell = self._group(group)[row - self._starts[group]]
        except pa.ArrowException as error:
            raise OSError(f"row group {group} of {self.place} cannot be read: {error}") from None
        return image_bytes(cell, f"row {row} of {self.place}", self._folder)

    def _read_group(self, group: int) -> pa.ChunkedArray:
        return self._file.read_row_group(group, columns=[self._column], use_threads=False).column(0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        self._group.cache_clear()
