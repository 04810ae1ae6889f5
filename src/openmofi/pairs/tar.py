"""WebDataset tars on disk: tar -> the offset and size of each member.

The compiled walk of tar_scan.py reads the headers and skips the images, unless they are small.
Members that it does not understand, such as sparse files, are read by the standard library.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmofi.pairs.tar_scan import BLOCK, CUT_OFF, END, MORE, NOT_A_HEADER, walk

_NEAR, _FAR = 1 << 20, 1 << 12
# If members are on average further apart than this, seeking is cheaper than reading on.
_LARGE_MEMBER = 16 << 10


@dataclass(frozen=True)
class Member:
    """A regular file inside a tar."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Members:
    """The regular files of a tar in order."""

    names: np.ndarray
    """Their names, uint8, concatenated."""
    name_ends: np.ndarray
    """Where each name ends; the first entry is 0."""
    offsets: np.ndarray
    """First byte of each."""
    sizes: np.ndarray
    damage: str | None
    """Why it ends early: truncated_tar, not_a_tar or damaged_tar_header; None: it does not."""

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Member]:
        ends, names = self.name_ends.tolist(), self.names.tobytes()
        places = zip(self.offsets.tolist(), self.sizes.tolist(), strict=True)
        for i, (offset, size) in enumerate(places):
            name = names[ends[i] : ends[i + 1]].decode("utf-8", "surrogateescape")
            yield Member(name, offset, size)


def scan_tar(path: Path) -> Members:
    """Returns the regular files of an uncompressed tar, up to the first damage.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb", buffering=0) as file:
        return _Scan(file.fileno(), path).run()


class _Scan:
    """The members found so far, in arrays that grow."""

    def __init__(self, fd: int, path: Path):
        self.fd, self.path, self.total = fd, path, os.fstat(fd).st_size
        self.names = np.empty(1 << 16, np.uint8)
        self.ends, self.offsets, self.sizes = (np.zeros(1 << 11, np.int64) for _ in range(3))
        self.count = 0

    def run(self) -> Members:
        """Walks to the end or to the first damage."""
        position, wanted, needed = 0, 1 << 16, 0
        while True:
            window = np.frombuffer(os.pread(self.fd, wanted, position), np.uint8)
            if len(window) < needed:
                return self._members("truncated_tar")  # it has shrunk since it was opened
            arrays = self.names, self.ends, self.offsets, self.sizes
            before = self.count
            why, self.count, reached, needed = walk(
                window, position, self.total, *arrays, self.count
            )
            if why == MORE:
                self._make_room()
                stride = (reached - position) // max(self.count - before, 1)
                position, wanted = reached, max(needed, _NEAR if stride < _LARGE_MEMBER else _FAR)
            elif why in (END, CUT_OFF, NOT_A_HEADER):
                return self._members(self._reason(why, reached))
            else:
                found = self._unusual(reached)
                if found is None:
                    return self._members("truncated_tar")
                position, needed = found, 0

    def _make_room(self) -> None:
        if self.count + 2 >= len(self.ends):
            for name in ("ends", "offsets", "sizes"):
                setattr(self, name, np.concatenate([getattr(self, name)] * 2))
        if self.ends[self.count] + (1 << 15) > len(self.names):
            self.names = np.concatenate([self.names, np.empty_like(self.names)])

    def _reason(self, why: int, position: int) -> str | None:
        if why == END:
            return None
        if why == CUT_OFF:
            return "not_a_tar" if self.total < BLOCK else "truncated_tar"
        return "not_a_tar" if position == 0 else "damaged_tar_header"

    def _members(self, damage: str | None) -> Members:
        count = self.count
        names = self.names[: self.ends[count]]
        return Members(
            names, self.ends[: count + 1], self.offsets[:count], self.sizes[:count], damage
        )

    def _unusual(self, position: int) -> int | None:
        """Reads one member with the standard library; returns the offset of the next, or None."""
        try:
            with self.path.open("rb") as file:
                file.seek(position)
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    info, following = archive.next(), archive.offset
        except (tarfile.TarError, ValueError, OverflowError):
            return None
        if info is None or info.size < 0 or info.offset_data + info.size > self.total:
            return None
        if not position < following < self.total + BLOCK:  # a wrong size
            return None
        if info.isreg() and not info.issparse():
            self._append(info.name.encode("utf-8", "surrogateescape"), info)
        return following

    def _append(self, name: bytes, info: tarfile.TarInfo) -> None:
        begin, i = int(self.ends[self.count]), self.count
        while begin + len(name) > len(self.names):
            self.names = np.concatenate([self.names, np.empty_like(self.names)])
        self.names[begin : begin + len(name)] = np.frombuffer(name, np.uint8)
        self.ends[i + 1], self.offsets[i], self.sizes[i] = (
            begin + len(name),
            info.offset_data,
            info.size,
        )
        self.count += 1
        self._make_room()
