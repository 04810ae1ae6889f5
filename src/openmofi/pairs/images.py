"""Fetches encoded images by the columns shard, offset, size and path of any table."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from openmofi.files.remote import Remote, Root, open_root
from openmofi.pairs.formats import FORMATS, ImageCells, kind_of

_MAX_OPEN = 256
_MAX_TABLES = 8


class ImageReader:
    """Fetches encoded images; of a remote input, only the requested bytes."""

    def __init__(self, root: Root | str):
        self.root = open_root(root)
        self._open: dict[str, io.FileIO] = {}
        self._tables: dict[str, ImageCells] = {}
        self._copies: TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def read(self, row: dict[str, Any]) -> bytes:
        """Returns the encoded bytes of one image.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        return self.read_place(row["shard"], row["offset"], row["size"], row["path"])

    def read_place(self, shard: str, offset: int, size: int, path: str) -> bytes:
        """Returns the encoded bytes of one image.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        if offset >= 0:
            return self._read_range(shard, offset, size)
        if path.startswith("row:"):
            with self._lock:
                return self._table(shard).read(int(path[4:]))
        if isinstance(self.root, Remote):
            return (self.root / path).read()
        return (self.root / path).read_bytes()

    def close(self) -> None:
        """Closes all open shards."""
        for file in (*self._open.values(), *self._tables.values()):
            file.close()
        self._open.clear()
        self._tables.clear()
        if self._copies is not None:
            self._copies.cleanup()
            self._copies = None

    def __del__(self) -> None:
        self.close()

    def _read_range(self, shard: str, offset: int, size: int) -> bytes:
        if isinstance(self.root, Remote):
            data = (self.root / shard).read(offset, offset + size)
        else:
            with self._lock:
                data = os.pread(self._file(shard).fileno(), size, offset)
        if len(data) != size:
            raise OSError(f"{shard} ends before byte {offset + size}")
        return data

    def _file(self, shard: str) -> io.FileIO:
        assert isinstance(self.root, Path)
        return _kept(self._open, shard, _MAX_OPEN, lambda: io.FileIO(self.root / shard))

    def _table(self, shard: str) -> ImageCells:
        return _kept(self._tables, shard, _MAX_TABLES, lambda: self._open_table(shard))

    def _open_table(self, shard: str) -> ImageCells:
        place = self.root / shard
        form = FORMATS[kind_of(shard) or "parquet"]
        if form.images is None:
            raise OSError(f"{place} has no rows with images")
        if form.mapped:
            return form.images(self._local(shard), str(place))
        if isinstance(place, Remote):
            system, path = place.open()
            return form.images(system.open(path, "rb"), str(place))
        return form.images(place, str(place))

    def _local(self, shard: str) -> Path:
        """Returns a local path of a file, copying a remote one."""
        if isinstance(self.root, Path):
            return self.root / shard
        if self._copies is None:
            self._copies = TemporaryDirectory(prefix="openmofi-")
        path = Path(self._copies.name) / shard
        if not path.is_file():
            (self.root / shard).copy_to(path)
        return path


def _kept(files: dict[str, Any], name: str, most: int, make: Callable[[], Any]) -> Any:
    """Returns an open file; closes the oldest one if too many are open."""
    if name not in files:
        if len(files) >= most:
            files.pop(next(iter(files))).close()
        files[name] = make()
    return files[name]
