"""Reads compressed or plain text files, including truncated ones.

In: a path ending in .gz, .bz2, .zst or anything else (plain), or "-" for standard input, whose
compression is told by its first bytes. Out: blocks of bytes, or (line number, bytes), without the
byte order mark that some editors put at the beginning; UTF-16 and UTF-32 are rejected.
"""

import codecs
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from openmofi.files.compressed import DAMAGE, SUFFIXES, TrailingGarbage, decompressor
from openmofi.files.wide import refuse_wide

STDIN = "-"
BLOCK_BYTES = 1 << 20
_COMPRESSIONS = (".gz", ".bz2", ".zst")
TRUNCATED, TRAILING = "truncated_file", "trailing_garbage"
_MARK = codecs.BOM_UTF8


class Damage(NamedTuple):
    """Why a file breaks off."""

    reason: str
    """TRUNCATED, or TRAILING: its content is complete, but something else follows it."""
    message: str


class TruncatedFile(Exception):
    """Signals that a file is truncated or damaged; raised after all its readable lines."""

    def __init__(self, damage: Damage):
        super().__init__(damage.message)
        self.damage = damage


class Blocks:
    """The decompressed content of a file, block by block."""

    def __init__(self, path: Path):
        file: Any = sys.stdin.buffer if str(path) == STDIN else path.open("rb")
        self._file = file
        self._path, self._owned = path, str(path) != STDIN
        self.size = os.fstat(self._file.fileno()).st_size if self._owned else None
        """Bytes of the file on disk; None for standard input."""
        suffix = path.suffix
        if not self._owned:
            start = file.peek(4)
            suffixes = (known for magic, known in SUFFIXES.items() if start.startswith(magic))
            suffix = next(suffixes, "")
        self._plain = suffix not in SUFFIXES.values()
        self._read = decompressor(self._file, suffix, BLOCK_BYTES)
        self._at_start = True

    def __enter__(self) -> "Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        if self._owned:
            self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        """Yields the blocks.

        Raises:
            TruncatedFile: the file is truncated or damaged; raised after the last readable block.
            InputError: the file is UTF-16 or UTF-32.
        """
        if self._at_start:
            yield from self._first_block()
        while block := self._next_block():
            yield block

    def _first_block(self) -> Iterator[bytes]:
        """Yields the first block, if there is more than a byte order mark."""
        self._at_start = False
        block = damage = None
        try:
            block = self._next_block()
            while 0 < len(block) < len(_MARK) and (more := self._next_block()):
                block += more
        except TruncatedFile as error:
            damage = error
        refuse_wide(block or b"", self._path)
        if block and (block := block.removeprefix(_MARK)):
            yield block
        if damage:
            raise damage

    def _next_block(self) -> bytes:
        try:
            return self._read()
        except TrailingGarbage as error:
            raise TruncatedFile(Damage(TRAILING, str(error))) from None
        except DAMAGE as error:
            message = str(error) or "the file breaks off"
            raise TruncatedFile(Damage(TRUNCATED, message)) from None

    @property
    def position(self) -> int:
        """Bytes of the file on disk read so far; 0 for standard input."""
        return self._file.tell() if self._owned else 0

    def skip(self, num_bytes: int) -> bytes:
        """Skips the first `num_bytes` of content; returns what was read beyond them.

        Only a plain file can seek; a compressed one is decompressed again.
        """
        if self._plain and self._owned:
            marked = self._file.read(len(_MARK)) == _MARK
            self._file.seek(num_bytes + marked * len(_MARK))
            self._at_start = False
            return b""
        for block in self:
            if len(block) > num_bytes:
                return block[num_bytes:]
            num_bytes -= len(block)
            if not num_bytes:
                break
        return b""


def content_suffix(path: Path) -> str:
    """Returns a path's suffix without that of its compression: .csv for x.csv.gz."""
    suffixes = path.suffixes
    if len(suffixes) > 1 and suffixes[-1] in _COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def read_lines(path: Path, *, keep_ends: bool = False) -> Iterator[tuple[int, bytes]]:
    """Yields the number, from 1, and the bytes of every line, with or without its line end.

    Raises:
        TruncatedFile: the file is truncated or damaged; raised after the last whole line.
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
                        yield number, line + b"\n" if keep_ends else line.rstrip(b"\r")
        except TruncatedFile as error:
            if error.damage.reason == TRAILING and any(rest):
                yield number + 1, b"".join(rest)
            raise
    if any(rest):
        yield number + 1, b"".join(rest)
