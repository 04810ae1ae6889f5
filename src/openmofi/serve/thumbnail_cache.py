"""A cache of thumbnails on disk.

    CACHE/thumbnails/ab/abcdef….webp    named by a hash of the image's place and the side

The oldest ones are deleted when the cache grows too large. CACHE is OPENMOFI_CACHE, or openmofi in
the user's cache folder.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from openmofi.images.thumbnails import Side, make_thumbnail
from openmofi.refused import Refused
from openmofi.serve.metrics import Metrics

_AFTER_CLEARING = 0.8
"""Share of the limit that is kept when the cache is cleared."""


class ThumbnailCache:
    """Thumbnails on disk, which several servers may share."""

    def __init__(self, folder: Path, max_bytes: int, metrics: Metrics):
        self.folder, self.max_bytes, self._metrics = folder, max_bytes, metrics
        self._bytes: int | None = None
        self._lock = threading.Lock()

    def get(self, place: tuple, side: Side, read: Callable[[], bytes]) -> bytes | Refused:
        """Returns the thumbnail of an image, or a Refused.

        Args:
            place: identifies the image.
            side: longest side.
            read: returns the image's bytes; only called if there is no thumbnail yet.
        """
        name = blake2b(repr((*place, side)).encode(errors="replace"), digest_size=16).hexdigest()
        path = self.folder / name[:2] / f"{name}.webp"
        try:
            found = path.read_bytes()
            self._metrics.thumbnails.labels("yes").inc()
            return found
        except OSError:
            self._metrics.thumbnails.labels("no").inc()
        made = make_thumbnail(read(), side)
        if isinstance(made, Refused):
            return made
        self._write(path, made[0])
        return made[0]

    def _write(self, path: Path, data: bytes) -> None:
        """Stores a thumbnail; a full or read-only disk is ignored."""
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        with self._lock:
            self._bytes = self._measured() if self._bytes is None else self._bytes + len(data)
            if self._bytes > self.max_bytes:
                self._bytes = self._clear()

    def _measured(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _clear(self) -> int:
        """Deletes the oldest thumbnails; returns the number of bytes left."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= _AFTER_CLEARING * self.max_bytes:
                break
            Path(path).unlink(missing_ok=True)
            left -= size
        return left

    def _files(self) -> list[tuple[float, int, str]]:
        """Returns (time, bytes, path) of all thumbnails."""
        found = []
        for folder in self.folder.glob("??"):
            for entry in os.scandir(folder):
                try:
                    known = entry.stat()
                except FileNotFoundError:  # another server is clearing, too
                    continue
                found.append((known.st_mtime, known.st_size, entry.path))
        return found
