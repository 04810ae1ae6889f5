"""Reads compressed or plain text files line by line, and survives files that end too early.

In: a path ending in .gz, .bz2, .zst or anything else (plain). Out: (line number, bytes).
"""

import bz2
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from isal import igzip, isal_zlib

_CHUNK_BYTES = 1 << 20
# What the decompressors raise for files that were cut off or damaged.
_DAMAGE: Any = (
    EOFError,
    OSError,
    zlib.error,
    isal_zlib.error,
    pa.ArrowException,
)


class TruncatedFile(Exception):
    """Says that a file ended or broke in the middle; raised after all its readable lines."""

    def __init__(self, message: str, rest: bytes = b""):
        super().__init__(message)
        self.rest = rest
        """What was readable of the line where the file broke."""


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yields the number, from 1, and the content of every line, without its line end.

    Raises:
        TruncatedFile: the file is cut off or damaged; raised after the last readable line.
    """
    number = 0
    rest: list[bytes] = []
    for chunk in _chunks(path):
        if isinstance(chunk, TruncatedFile):
            raise TruncatedFile(str(chunk), b"".join(rest))
        first, *lines = chunk.split(b"\n")
        rest.append(first)
        if lines:
            complete = [b"".join(rest), *lines[:-1]]
            rest = [lines[-1]]
            for line in complete:
                number += 1
                yield number, line.rstrip(b"\r")
    if any(rest):
        yield number + 1, b"".join(rest)


def _chunks(path: Path) -> Iterator[bytes | TruncatedFile]:
    with path.open("rb") as file:
        read = _decompressor(path.suffix, file)
        while True:
            try:
                chunk = read()
            except _DAMAGE as error:
                yield TruncatedFile(str(error))
                return
            if not chunk:
                return
            yield chunk


def _decompressor(suffix: str, file: Any) -> Callable[[], bytes]:
    """Returns a function that gives the next piece, b"" at the end."""
    # read1 gives what it has before it meets the damage; read(n) would lose it.
    if suffix == ".gz":
        gzip_file = igzip.IGzipFile(fileobj=file, mode="rb")
        return lambda: gzip_file.read1(_CHUNK_BYTES)
    if suffix == ".bz2":
        bz2_file = bz2.BZ2File(file)
        return lambda: bz2_file.read1(_CHUNK_BYTES)
    if suffix == ".zst":
        stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")
        return lambda: stream.read(_CHUNK_BYTES)
    return lambda: file.read(_CHUNK_BYTES)
