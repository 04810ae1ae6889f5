"""Directories of the Hugging Face `datasets` library (save_to_disk) -> schema.PAIRS.

A dataset is a folder with state.json, which names its data-*.arrow files; a DatasetDict is a folder
with dataset_dict.json and one dataset per split. The files are Arrow streams and stay mapped into
memory: any row can be read without the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.files.remote import FoundFile, Root
from openmofi.pairs.rows import IMAGE_COLUMNS, RowColumns, image_bytes, pick_column

STATE, SPLITS, INDICES = "state.json", "dataset_dict.json", "indices.arrow"


def dataset_files(folder: Path) -> list[Path]:
    """Returns the .arrow files of a saved dataset or DatasetDict; [] if the folder is neither.

    Raises:
        InputError: its metadata cannot be read, or an index selects its rows.
    """
    if (folder / SPLITS).is_file():
        names = _json(folder / SPLITS).get("splits", [])
        return [file for name in names for file in dataset_files(folder / name)]
    if not (folder / STATE).is_file():
        return []
    state = _json(folder / STATE)
    if state.get("_indices_data_files") or (folder / INDICES).exists():
        raise indices_error(folder / INDICES)
    return [folder / file["filename"] for file in state.get("_data_files") or []]


def arrow_files(root: Root, found: Sequence[FoundFile]) -> list[FoundFile]:
    """Returns the data files of saved datasets, without the cache files of `datasets`.

    Raises:
        InputError: as `dataset_files`.
    """
    if isinstance(root, Path):
        splits = any(file.path == SPLITS for file in found)
        states = [] if splits else [file.path for file in found if _name(file) == STATE]
        folders = [root] if splits else [(root / state).parent for state in states]
        files = [file for folder in folders for file in dataset_files(folder)]
        if files:
            return [FoundFile(file.relative_to(root).as_posix(), 0, 0) for file in files]
    named = [file for file in found if file.path.endswith(".arrow")]
    for file in named:
        if _name(file) == INDICES:
            raise indices_error(root / file.path)
    return [file for file in named if not _name(file).startswith("cache-")]


def _name(file: FoundFile) -> str:
    return PurePosixPath(file.path).name


def indices_error(path: object) -> InputError:
    """Returns the error for a dataset whose rows are selected by an index."""
    return InputError(
        f"{str(path)!r} selects rows by an index, which is not supported; save the dataset again "
        "with load_from_disk(...).flatten_indices().save_to_disk(...)."
    )


def _json(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{str(path)!r} is not the JSON object that `datasets` writes.")
    return value


def read_arrow(
    path: Path, name: str, start: int = 0, stop: int | None = None
) -> tuple[pa.Table, str | None]:
    """Returns (pairs of some rows, truncated_arrow if the file ends early or None).

    Raises:
        InputError: the file is not an Arrow file, or lacks a caption or an image column.
        OSError: the file cannot be opened.
    """
    table, damage = open_arrow(path)
    columns = RowColumns(path, table.schema)
    length = None if stop is None else stop - start
    part = table.select(columns.wanted).slice(start, length)
    return columns.pairs(part, name, start), None if stop is not None else damage


def open_arrow(path: Path) -> tuple[pa.Table, str | None]:
    """Maps an Arrow stream or file into memory; returns (table, why it ends early or None).

    Raises:
        InputError: it is neither.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{str(path)!r} is not a readable Arrow file: it is empty.")
    source = pa.memory_map(str(path))
    try:
        if source.read(6) == b"ARROW1":
            return pa.ipc.open_file(source).read_all(), None
        source.seek(0)
        reader = pa.ipc.open_stream(source)
    except pa.ArrowInvalid as error:
        raise InputError(f"{str(path)!r} is not a readable Arrow file: {error}.") from None
    batches, damage = [], None
    try:
        for batch in reader:
            batches.append(batch)
    except (pa.ArrowInvalid, OSError):
        damage = "truncated_arrow"
    return pa.Table.from_batches(batches, reader.schema), damage


def batch_ends(path: Path) -> list[int]:
    """Returns the row behind the last of each batch; [] if the file cannot be read."""
    try:
        table, _ = open_arrow(path)
    except (InputError, OSError):
        return []
    return list(accumulate(map(len, table.to_batches())))


class ArrowImages:
    """Image cells of an Arrow file by row."""

    def __init__(self, path: Path, place: str):
        table, _ = open_arrow(path)
        self.place, self._folder = place, path.parent
        self._images = table[pick_column(table.schema.names, IMAGE_COLUMNS)]

    def read(self, row: int) -> bytes:
        """Returns the image bytes of one row.

        Raises:
            OSError: there is no such row, or its cell is empty.
        """
        if not 0 <= row < len(self._images):
            raise OSError(f"{self.place} has no row {row}")
        return image_bytes(self._images[row], f"row {row} of {self.place}", self._folder)

    def close(self) -> None:
        """Unmaps the file."""
        self._images = pa.chunked_array([], pa.binary())
