"""Every format of pairs: what its shards are called, how they are found, cut and read.

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
    """Image cells of a shard that is open."""

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row."""
        ...

    def close(self) -> None:
        """Closes the shard."""


@dataclass(frozen=True)
class Format:
    """A format of pairs."""

    suffixes: tuple[str, ...]
    """Of its shards."""
    read: Callable[[Path, Shard, bool], tuple[pa.Table, str | None]]
    """Of a local path, the shard, and whether files that it lists are there, too: (schema.PAIRS in
    input order, why it ends early or None)."""
    find: Callable[[Root, Sequence[FoundFile]], list[FoundFile]] | None = None
    """Of the files of an input, its shards; None: those with its suffix."""
    stops: Callable[[Path], list[int]] = lambda path: []
    """Rows behind which a local file is cut into parts."""
    images: Callable[[Any, str], ImageCells] | None = None
    """Of a path or open file and its name: the images of paths such as row:7. None: images are
    files, or bytes from an offset on."""
    mapped: bool = False
    """`images` maps a file into memory, so that a remote one is copied."""
    sidecar: str | None = None
    """Suffix of a file beside a shard that `read` looks into, if it is there."""


def _listed_stops(path: Path) -> list[int]:
    try:
        return list(range(_ROWS_OF_FILES, count_entries(path), _ROWS_OF_FILES))
    except (InputError, OSError):
        return []  # who reads it says what is wrong


def table_stops(ends: list[int]) -> list[int]:
    """Returns which row groups or batches end a part, each of 10,000 rows at least."""
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
"""By `Shard.kind`; of a folder with several, the first counts."""
ACCEPTED = (
    "a folder of .tar or .parquet shards, a folder of images with .txt captions beside them, a "
    ".csv / .jsonl with the columns file and caption, a folder saved by Hugging Face datasets, or "
    "a URL (s3://, gs://, hf://, https://) of any of them"
)


def kind_of(path: str) -> str | None:
    """Returns the kind of a file by its suffix."""
    suffix = PurePosixPath(path).suffix
    return next((kind for kind, form in FORMATS.items() if suffix in form.suffixes), None)
