"""Reads compressed or plain text files, and survives files that end too early.

In: a path ending in .gz, .bz2, .zst or anything else (plain), or "-" for standard input, whose
compression shows in its first bytes. Out: blocks of bytes, or (line number, bytes).
"""

import bz2
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from isal import igzip, isal_zlib

STDIN = "-"
BLOCK_BYTES = 1 << 20
# What the decompressors raise for files that were cut off or damaged.
_DAMAGE: Any = (
    EOFError,
    OSError,
    zlib.error,
    isal_zlib.error,
    pa.ArrowException,
)
_MAGIC = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\x28\xb5\x2f\xfd": ".zst"}


class TruncatedFile(Exception):
    """Says that a file ended or broke in the middle; raised after all its readable lines."""

    def __init__(self, message: str, rest: bytes = b""):
        super().__init__(message)
        self.rest = rest
        """What was readable of the line where the file broke."""


class Blocks:
    """The decompressed content of a file, block by block."""

    def __init__(self, path: Path):
        self._file: Any = sys.stdin.buffer if str(path) == STDIN else path.open("rb")
        self._owned = str(path) != STDIN
        self.size = os.fstat(self._file.fileno()).st_size if self._owned else None
        """Bytes of the file as it lies on disk; None for standard input."""
        suffix = path.suffix if self._owned else _suffix_by_content(self._file)
        self._plain = suffix not in _MAGIC.values()
        self._read = _decompressor(suffix, self._file)

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yields the blocks.

        Raises:
            TruncatedFile: the file is cut off or damaged; raised after the last readable block.
        """
        while True:
            try:
                block = self._read()
            except _DAMAGE as error:
                raise TruncatedFile(str(error)) from None
            if not block:
                return
            yield block

    @property
    def position(self) -> int:
        """Bytes of the file on disk that were read so far; 0 for standard input."""
        return self._file.tell() if self._owned else 0

    def skip(self, num_bytes: int) -> bytes:
        """Leaves out the first `num_bytes` of content; returns what was read beyond them.

        Only a plain file can jump; a compressed one is decompressed again.
        """
        if self._plain and self._owned:
            self._file.seek(num_bytes)
            return b""
        for block in self:
            if len(block) > num_bytes:
                return block[num_bytes:]
            num_bytes -= len(block)
            if not num_bytes:
                break
        return b""


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the number, from 1, and the content of every line, without its line end.

    Raises:
        TruncatedFile: the file is cut off or damaged; raised after the last readable line.
    """
    number = 0
    rest: list[bytes] = []
    with Blocks(path) as blocks:
        try:
            for block in blocks:
                first, *lines = block.split(b"\n")
                rest.append(first)
                if lines:
                    complete = [b"".join(rest), *lines[:-1]]
                    rest = [lines[-1]]
                    for line in complete:
                        number += 1
                        yield number, line.rstrip(b"\r")
        except TruncatedFile as error:
            raise TruncatedFile(str(error), b"".join(rest)) from None
    if any(rest):
        yield number + 1, b"".join(rest)


def _suffix_by_content(file: Any) -> str:
    start = file.peek(4)
    return next((suffix for magic, suffix in _MAGIC.items() if start.startswith(magic)), "")


def _decompressor(suffix: str, file: Any) -> Callable[[], bytes]:
    """Returns a function that gives the next piece, b"" at the end."""
    # read1 gives what it has before it meets the damage; read(n) would lose it.
    if suffix == ".gz":
        gzip_file = igzip.IGzipFile(fileobj=file, mode="rb")
        return lambda: gzip_file.read1(BLOCK_BYTES)
    if suffix == ".bz2":
        bz2_file = bz2.BZ2File(file)
        return lambda: bz2_file.read1(BLOCK_BYTES)
    if suffix == ".zst":
        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        return lambda: stream.read(BLOCK_BYTES)
    return lambda: file.read(BLOCK_BYTES)
