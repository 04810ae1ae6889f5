"""Decompresses files piece by piece, down to the last readable byte of a truncated one.

In: an open file and the suffix of its compression. Out: a function that returns the next piece of
content, b"" at the end.
"""

import bz2
import zlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from isal import igzip_lib

GZIP_MAGIC, BZIP2_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd"
SUFFIXES = {GZIP_MAGIC: ".gz", BZIP2_MAGIC: ".bz2", ZSTD_MAGIC: ".zst"}

# What the decompressors raise for files that were cut off or damaged.
DAMAGE: Any = (EOFError, OSError, zlib.error, igzip_lib.error, pa.ArrowException)

# If igzip meets wrong bytes in a piece, the whole piece is lost; smaller pieces are slower.
_GZIP_BYTES = 1 << 17
_CUT_OFF = "the file ends before its compressed content does"


class TrailingGarbage(Exception):
    """Signals that something else follows a file's complete content."""


def decompressor(file: Any, suffix: str, size: int) -> Callable[[], bytes]:
    """Returns a function that returns the next piece, b"" at the end.

    Args:
        file: open for reading bytes.
        suffix: .gz, .bz2 or .zst; anything else means not compressed.
        size: maximum number of bytes of a piece.
    """
    if suffix == ".gz":
        return _Gzip(file, size).read
    if suffix == ".bz2":
        bz2_file = bz2.BZ2File(file)
        # read1 returns what it has before it meets the damage; read(n) would lose it.
        return lambda: bz2_file.read1(size)
    if suffix == ".zst":
        return _Zstandard(file, size).read
    return lambda: file.read(size)


class _Gzip:
    """Reads gzip members; igzip's own file object loses the last block of a truncated file."""

    def __init__(self, file: Any, size: int):
        self._file, self._size = file, size
        self._raw = b""
        self._member: Any = None
        self._num_members = 0

    def read(self) -> bytes:
        """Returns the next piece.

        Raises:
            TrailingGarbage: a member is followed by something else.
            EOFError: the file is truncated.
            IsalError: the file is damaged.
        """
        while self._member is not None or self._starts_member():
            if not self._raw and self._member.needs_input:
                self._raw = self._file.read(_GZIP_BYTES)
                if not self._raw:
                    raise EOFError(_CUT_OFF)
            raw, self._raw = self._raw, b""
            block = self._member.decompress(raw, self._size)
            if self._member.eof:
                self._raw, self._member = self._member.unused_data, None
            if block:
                return block
        return b""

    def _starts_member(self) -> bool:
        """Starts the next member; tells whether there is one."""
        raw = self._without_padding(self._raw)
        while len(raw) < len(GZIP_MAGIC) and (more := self._file.read(_GZIP_BYTES)):
            raw = self._without_padding(raw + more)
        self._raw = raw
        if not raw:
            return False
        if not raw.startswith(GZIP_MAGIC):
            if self._num_members:
                raise TrailingGarbage("something else follows the compressed content")
            raise EOFError("the file is not compressed by gzip")
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._num_members += 1
        return True

    def _without_padding(self, raw: bytes) -> bytes:
        # Tapes pad files with zeros; gzip ignores them as well.
        return raw.lstrip(b"\0") if self._num_members else raw


class _Zstandard:
    """Reads Zstandard frames through Arrow, which loses a whole piece if it is damaged."""

    def __init__(self, file: Any, size: int):
        self._file, self._size = file, size
        self._stream = self._open()
        self._given = 0
        self._damage: Exception | None = None

    def _open(self) -> pa.CompressedInputStream:
        return pa.CompressedInputStream(pa.PythonFile(self._file, mode="r"), "zstd")

    def read(self) -> bytes:
        """Returns the next piece.

        Raises:
            OSError: the file is truncated or damaged; raised after everything readable.
        """
        if self._damage:
            raise self._damage
        try:
            block = self._stream.read(self._size)
        except DAMAGE as error:
            block, self._damage = self._lost_piece(), error
            if not block:
                raise
        self._given += len(block)
        return block

    def _lost_piece(self) -> bytes:
        """Rereads the file up to the lost piece, then that piece byte by byte; b"" for a pipe."""
        if not self._file.seekable():
            return b""
        # Keep the old stream: deleting it would close the file.
        self._file.seek(0)
        self._damaged, self._stream = self._stream, self._open()
        left = self._given
        while left:
            left -= len(self._stream.read(min(left, self._size)))
        found = bytearray()
        try:
            while byte := self._stream.read(1):
                found += byte
        except DAMAGE:
            pass
        return bytes(found)
