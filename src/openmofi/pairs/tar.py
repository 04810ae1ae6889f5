"""WebDataset tars as they lie on disk: tar -> where each sample's files start and how long.

The scan reads one 512-byte header per member and never the pictures. Archives with extended
headers (pax, GNU long names) go through the standard library instead.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 512
_REGULAR = (b"0", b"\0")
_EXTENDED = (b"x", b"g", b"L", b"K", b"S")


@dataclass(frozen=True)
class Member:
    """A regular file inside a tar."""

    name: str
    offset: int
    size: int


class DamagedTar(Exception):
    """Reports where a tar stops being readable; `reason` is truncated_tar or not_a_tar."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


def scan_tar(path: Path) -> Iterator[Member]:
    """Yields the regular files of an uncompressed tar in order.

    Raises:
        DamagedTar: after the last whole member, if the archive is cut off or garbage follows.
    """
    total = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        position = 0
        while True:
            header = os.pread(file.fileno(), _BLOCK, position)
            if len(header) < _BLOCK:
                if position == 0:
                    raise DamagedTar("not_a_tar")
                raise DamagedTar("truncated_tar")
            if header.count(0) == _BLOCK:
                return
            kind = header[156:157]
            if kind in _EXTENDED:
                yield from _scan_slowly(path, position)
                return
            size = _checked_size(header)
            if size is None:
                raise DamagedTar("not_a_tar" if position == 0 else "damaged_tar_header")
            start = position + _BLOCK
            if start + size > total:
                raise DamagedTar("truncated_tar")
            if kind in _REGULAR:
                yield Member(_name(header), start, size)
            position = start + -(-size // _BLOCK) * _BLOCK


def _checked_size(header: bytes) -> int | None:
    """Returns the member's size, or None if the header's checksum does not hold."""
    try:
        checksum = int(header[148:156].strip(b" \0") or b"0", 8)
        if sum(header) - sum(header[148:156]) + 8 * 32 != checksum:
            return None
        if header[124] & 0x80:  # base-256, for files over 8 GiB
            return int.from_bytes(header[125:136], "big")
        return int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:262] == b"ustar" and header[345:346] != b"\0" and header[262:263] == b"\0":
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _scan_slowly(path: Path, skip_before: int) -> Iterator[Member]:
    """Yields the members from a position on, names from extended headers included."""
    total = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if info.offset_data + info.size > total:
                    raise DamagedTar("truncated_tar")
                if info.isreg() and info.offset >= skip_before:
                    yield Member(info.name, info.offset_data, info.size)
    except tarfile.TarError as error:
        raise DamagedTar("truncated_tar") from error
