"""Image-caption pairs, wherever they lie: path -> shards -> tables of schema.PAIRS.

Accepts WebDataset tars (with img2dataset's Parquet sidecars or without), Parquet files with image
bytes or paths, a CSV / JSONL of files and captions, and a folder of images with .txt beside.
Only texts are read here; a picture is fetched by `ImageReader` when somebody wants to see it.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import threading
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from openmofi.errors import InputError
from openmofi.pairs.folder import IMAGE_SUFFIXES, LISTING_SUFFIXES, find_listing, read_folder
from openmofi.pairs.parquet import read_image_cell, read_parquet
from openmofi.pairs.tar_shard import read_tar
from openmofi.shards import Shard

_ACCEPTED = (
    "a folder of .tar or .parquet shards, a folder of images with .txt captions beside them, or a "
    ".csv / .jsonl with the columns file and caption"
)

_MAX_OPEN = 256
PICTURE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for damaged bytes (the usual three, AVIF's RuntimeError, and what single
decoders let through) and for a header that claims too many pixels."""


@dataclass(frozen=True)
class Input:
    """What was found at a path: where relative names start, and the shards."""

    root: Path
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class ShardPairs:
    """A shard's pairs and why anything of it could not be read."""

    table: pa.Table
    """Columns of schema.PAIRS, in input order; unreadable rows have status error."""
    damage: str | None = None
    """Reason for which the shard ends early, if it does: truncated_tar, ..."""


def read_pairs(path: Path | str) -> Input:
    """Finds the shards at a path, sorted by name; reads no pair yet.

    Raises:
        InputError: nothing is there, or nothing that can be read as pairs.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"There is no input {str(path)!r}; pass {_ACCEPTED}.")
    if path.is_file():
        return Input(path.parent, (_shard(path, path.parent, _kind_of_file(path)),))
    for suffix, kind in ((".tar", "tar"), (".parquet", "parquet")):
        files = sorted(path.rglob(f"*{suffix}"))
        if files:
            return Input(path, _distinct([_shard(file, path, kind) for file in files]))
    listing = find_listing(path)
    if listing is not None:
        return Input(path, (_shard(listing, path, "folder"),))
    if any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*")):
        return Input(path, (_shard(path, path, "folder"),))
    raise InputError(f"{str(path)!r} holds no image-caption pairs; pass {_ACCEPTED}.")


def _kind_of_file(path: Path) -> str:
    if path.suffix in (".tar", ".parquet"):
        return path.suffix[1:]
    if path.suffix in LISTING_SUFFIXES:
        return "folder"
    raise InputError(f"{str(path)!r} is not a known kind of input; pass {_ACCEPTED}.")


def _shard(path: Path, root: Path, kind: str) -> Shard:
    stat = path.stat()
    relative = path.relative_to(root)
    name = "__".join(relative.with_suffix("").parts) if relative.name else "folder"
    size = stat.st_size if path.is_file() else 0
    return Shard(name, str(relative), kind, size, stat.st_mtime_ns)


def _distinct(shards: list[Shard]) -> tuple[Shard, ...]:
    """Gives shards of one name, such as a/b.tar and a__b.tar, different ones."""
    count = Counter(shard.name for shard in shards)
    return tuple(
        replace(shard, name=_unique_name(shard)) if count[shard.name] > 1 else shard
        for shard in shards
    )


def _unique_name(shard: Shard) -> str:
    return f"{shard.name}-{hashlib.sha256(shard.path.encode()).hexdigest()[:8]}"


def read_shard(root: Path, shard: Shard) -> ShardPairs:
    """Reads a shard's texts and the places of its pictures.

    Raises:
        InputError: the shard as a whole is not what its name says.
        OSError: the shard cannot be opened (vanished, no permission).
    """
    path = root / shard.path
    readers = {"tar": read_tar, "parquet": read_parquet, "folder": read_folder}
    table, damage = readers[shard.kind](path, shard.path)
    return ShardPairs(table, damage)


def count_errors(table: pa.Table) -> Counter[str]:
    """Returns how many pairs were refused, by reason."""
    counts = Counter(table["error"].to_pylist())
    del counts[""]
    return counts


class ImageReader:
    """Fetches encoded pictures by the columns shard, offset, size and path of any table."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self._open: dict[str, io.FileIO] = {}
        self._lock = threading.Lock()

    def read(self, row: dict[str, Any]) -> bytes:
        """Returns the encoded bytes of one picture.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        if row["offset"] >= 0:
            return self._read_range(row["shard"], row["offset"], row["size"])
        if row["path"].startswith("row:"):
            return read_image_cell(self.root / row["shard"], int(row["path"][4:]))
        return (self.root / row["path"]).read_bytes()

    def close(self) -> None:
        """Closes the shards that are open."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def __del__(self) -> None:
        self.close()

    def _read_range(self, shard: str, offset: int, size: int) -> bytes:
        with self._lock:
            data = os.pread(self._file(shard).fileno(), size, offset)
        if len(data) != size:
            raise OSError(f"{shard} ends before byte {offset + size}")
        return data

    def _file(self, shard: str) -> io.FileIO:
        """Returns the open shard; the oldest one gives way when many are open."""
        if shard not in self._open:
            if len(self._open) >= _MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            self._open[shard] = io.FileIO(self.root / shard)
        return self._open[shard]
