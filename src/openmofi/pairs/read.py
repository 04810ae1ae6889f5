"""A shard -> its image-caption pairs, a table of schema.PAIRS, and its images.

Only texts are read at first; an image is fetched on demand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from openmofi.files.remote import Remote, Root, open_root
from openmofi.images.formats import is_image
from openmofi.pairs.formats import FORMATS
from openmofi.pairs.images import ImageReader
from openmofi.shards import Shard


@dataclass(frozen=True)
class ShardPairs:
    """A shard's pairs, and why it ends early if it does."""

    table: pa.Table
    """schema.PAIRS in input order; unreadable rows have the status error."""
    damage: str | None = None
    """Reason for which the shard ends early, such as truncated_tar; None: it does not."""


class ShardView:
    """An open shard: its pairs, and their images by row number."""

    def __init__(self, pairs: ShardPairs, shard_reader: ImageReader, file_reader: ImageReader):
        self.pairs = pairs
        self._shard_reader, self._file_reader = shard_reader, file_reader
        self._shards, self._paths = pairs.table["shard"], pairs.table["path"]
        self._offsets, self._sizes = (
            pairs.table["offset"].to_numpy(),
            pairs.table["size"].to_numpy(),
        )

    def read(self, row: int) -> bytes:
        """Returns the encoded image of a row.

        Raises:
            OSError: the image is gone or truncated.
            ValueError: its path is not a valid one.
        """
        shard, path = self._shards[row].as_py(), self._paths[row].as_py()
        offset, size = int(self._offsets[row]), int(self._sizes[row])
        inside = offset >= 0 or path.startswith("row:")
        reader = self._shard_reader if inside else self._file_reader
        return reader.read_place(shard, offset, size, path)


@contextmanager
def open_shard(root: Root | str, shard: Shard) -> Iterator[ShardView]:
    """Opens a shard to read its texts and then any of its images; copies a remote one once.

    Raises:
        InputError: the shard as a whole does not have the format of its suffix.
        OSError: the shard cannot be opened (vanished, no permission).
    """
    root = open_root(root)
    with _local_copy(root, shard) as local:
        pairs = _read(local, shard, files_there=isinstance(root, Path))
        whole = isinstance(root, Path) or shard.path == "."
        with closing(ImageReader(local)) as inside:
            if whole:
                yield ShardView(pairs, inside, inside)
                return
            with closing(ImageReader(root)) as outside:
                yield ShardView(pairs, inside, outside)


def read_shard(root: Root | str, shard: Shard) -> ShardPairs:
    """Reads a shard's texts and the places of its images.

    Raises:
        InputError: the shard as a whole does not have the format of its suffix.
        OSError: the shard cannot be opened (vanished, no permission).
    """
    root = open_root(root)
    with _local_copy(root, shard) as local:
        return _read(local, shard, files_there=isinstance(root, Path))


def _read(root: Path, shard: Shard, *, files_there: bool) -> ShardPairs:
    return ShardPairs(*FORMATS[shard.kind].read(root / shard.path, shard, files_there))


@contextmanager
def _local_copy(root: Root, shard: Shard) -> Iterator[Path]:
    """Yields a local root with the shard's file below it; a copy is deleted on leaving."""
    if isinstance(root, Path):
        yield root
        return
    with TemporaryDirectory(prefix="openmofi-") as folder:
        _fetch(root, shard, Path(folder))
        yield Path(folder)


def _fetch(root: Remote, shard: Shard, folder: Path) -> None:
    """Copies the files of a shard: the file with its sidecar, or a folder's images and captions."""
    if shard.path == ".":
        for file in root.find():
            if is_image(file.path) or file.path.endswith(".txt"):
                (root / file.path).copy_to(folder / file.path, size=file.size)
        return
    (root / shard.path).copy_to(folder / shard.path, size=shard.size)
    suffix = FORMATS[shard.kind].sidecar
    sidecar = Path(shard.path).with_suffix(suffix or "").as_posix()
    if suffix and (root / sidecar).exists():
        (root / sidecar).copy_to(folder / sidecar)


def count_errors(table: pa.Table) -> Counter[str]:
    """Returns the number of refused pairs by reason."""
    counts = Counter(table["error"].to_pylist())
    del counts[""]
    return counts
