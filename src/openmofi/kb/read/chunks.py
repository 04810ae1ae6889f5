"""Cuts the content of a dump into chunks of whole lines, which processes decode independently.

In: the blocks of a decompressed file. Out: Chunks in order, each with the number of its first line
and the place where it ends, from which a killed build continues.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from openmofi.files.lines import Blocks, Damage, TruncatedFile

CHUNK_BYTES = 16 << 20
# A longer line is cut, so that a file without line ends cannot fill the memory. The largest
# entities of Wikidata have less than 10 MB.
_MAX_LINE_BYTES = 1 << 28


@dataclass(frozen=True)
class Chunk:
    """Some whole lines of a file."""

    data: bytes
    first_line: int
    """Number of its first line in the file, from 1."""
    next_line: int
    """Number of the line after its last one."""
    end: int
    """Number of bytes of content up to its end."""
    position: int
    """Number of bytes of the file on disk that were read by then."""
    damage: Damage | None = None
    """Why the file breaks off here, perhaps within a line; None if it does not."""


def read_chunks(blocks: Blocks, *, start: int = 0, first_line: int = 1) -> Iterator[Chunk]:
    """Yields the chunks of a file; the last has `damage` if the file is cut off.

    Args:
        blocks: the file's content.
        start: bytes of content to skip: the `end` of an earlier chunk.
        first_line: number of the line that begins there.
    """
    cutter = _Cutter(blocks, start, first_line)
    yield from cutter.chunks()


class _Cutter:
    """Collects blocks until they fill a chunk."""

    def __init__(self, blocks: Blocks, start: int, first_line: int):
        self._blocks, self._end, self._line = blocks, start, first_line
        self._pending = bytearray()

    def chunks(self) -> Iterator[Chunk]:
        damage = None
        try:
            if self._end:
                self._pending += self._blocks.skip(self._end)
            for block in self._blocks:
                self._pending += block
                if len(self._pending) >= CHUNK_BYTES and (cut := self._find_cut()):
                    yield self._take(cut)
        except TruncatedFile as error:
            damage = error.damage
        if self._pending or damage is not None:
            yield self._take(len(self._pending), damage)

    def _find_cut(self) -> int:
        """Returns where the last line ends, or 0 if it has not ended yet."""
        cut = self._pending.rfind(b"\n") + 1
        if not cut and len(self._pending) > _MAX_LINE_BYTES:
            return len(self._pending)
        return cut

    def _take(self, size: int, damage: Damage | None = None) -> Chunk:
        data = bytes(memoryview(self._pending)[:size])
        del self._pending[:size]
        self._end += size
        first, self._line = self._line, self._line + data.count(b"\n")
        return Chunk(data, first, self._line, self._end, self._blocks.position, damage)
