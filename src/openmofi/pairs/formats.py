"""Every format of pairs: how its shards are named, found, cut and read.

To add one, write a file such as parquet.py and an entry in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.files.remote import FoundFile, Root
from openmofi.pairs.arrow import ArrowImages, arrow_files, batch_ends, read_arrow
from openmofi.pairs.folder import count_entries, folder_files, read_folder
from openmofi.pairs.listing import LISTING_SUFFIXES
from openmofi.pairs.parquet import ParquetImages, read_parquet, row_group_ends
from openmofi.pairs.tar_shard import read_tar
from openmofi.shards import Shard

_ROWS_OF_FILES, _ROWS_OF_TABLES = 1_000, 10_000


class ImageCells(Protocol):
    """The image cells of an open shard."""

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""
        ...

    def close(self) -> None:
        """Closes the shard."""


@dataclass(frozen=True)
class Format:
    """A format of pairs."""

    suffixes: tuple[str, ...]
    """Suffixes of its shards."""
    read: Callable[[Path, Shard, bool], tuple[pa.Table, str | None]]
    """Takes a local path, the shard, and whether the files that it lists are local, too. Returns
    (schema.PAIRS in input order, why it ends early or None)."""
    find: Callable[[Root, Sequence[FoundFile]], list[FoundFile]] | None = None
    """Finds its shards among the files of an input; None: those with its suffixes."""
    stops: Callable[[Path], list[int]] = lambda path: []
    """Returns the rows at which a local file is cut into parts."""
    images: Callable[[Any, str], ImageCells] | None = None
    """Opens the images of paths such as row:7, given a path or an open file and its name. None:
    images are files, or bytes at an offset."""
    mapped: bool = False
    """Whether `images` maps a file into memory, so that a remote one must be copied."""
    sidecar: str | None = None
    """Suffix of a file next to a shard that `read` also reads if it exists."""


def _listed_stops(path: Path) -> list[int]:
    try:
        return list(range(_ROWS_OF_FILES, count_entries(path), _ROWS_OF_FILES))
    except (InputError, OSError):
        return []  # reading it reports what is wrong


def table_stops(ends: list[int]) -> list[int]:
    """Returns the row group or batch ends that cut parts of at least 10,000 rows."""
    stops, start = [], 0
    for end in ends:
        if end - start >= _ROWS_OF_TABLES and ends[-1] - end >= _ROWS_OF_TABLES:
            stops.append(end)
            start = end
    return stops


FORMATS = {
    "tar": Format(
        suffixes=(".tar",),
        read=lambda path, shard, _: read_tar(path, shard.path),
        sidecar=".parquet",
    ),
    "parquet": Format(
        suffixes=(".parquet",),
        read=lambda path, shard, _: read_parquet(path, shard.path, shard.start, shard.stop),
        stops=lambda path: table_stops(row_group_ends(path)),
        images=ParquetImages,
    ),
    "arrow": Format(
        suffixes=(".arrow",),
        read=lambda path, shard, _: read_arrow(path, shard.path, shard.start, shard.stop),
        find=arrow_files,
        stops=lambda path: table_stops(batch_ends(path)),
        images=ArrowImages,
        mapped=True,
    ),
    "folder": Format(
        suffixes=LISTING_SUFFIXES,
        read=lambda path, shard, there: read_folder(
            path, shard.path, shard.start, shard.stop, check_files=there or path.is_dir()
        ),
        find=folder_files,
        stops=_listed_stops,
    ),
}
"""Formats by `Shard.kind`; of a folder with several, the first is read."""
ACCEPTED = (
    "a folder of .tar or .parquet shards, a folder of images with .txt captions next to them, a "
    ".csv / .jsonl with the columns file and caption, a folder saved by Hugging Face datasets, or "
    "a URL (s3://, gs://, hf://, https://) of any of them"
)


def kind_of(path: str) -> str | None:
    """Returns the kind of a file by its suffix."""
    suffix = PurePosixPath(path).suffix
    return next((kind for kind, form in FORMATS.items() if suffix in form.suffixes), None)
