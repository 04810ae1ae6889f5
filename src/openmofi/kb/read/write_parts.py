"""Reads the sources of a knowledge base into part files; continues where a killed run stopped.

In: a dump or a catalogue. Out: its finished PartFiles. A dump is decompressed and cut in this
process and decoded in others. The parts arrive in the order of the dump, so the committed parts are
always its beginning, and the result does not depend on the number of workers.
"""

import sys
import time
from itertools import chain, islice
from pathlib import Path

from openmofi.config import KBSettings
from openmofi.files.lines import STDIN, Blocks
from openmofi.kb.read import chunks as cutting
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.parts import PartFiles, make_part
from openmofi.kb.read.pool import decode_chunks, num_workers
from openmofi.kb.read.records import Records
from openmofi.kb.read.single_entity import is_whole_file, read_whole
from openmofi.progress import Progress, progress, rate

COMMIT_SECONDS = 5.0
_CATALOGUE_ROWS = 1 << 14
_MEGABYTE = 1e6


def read_dump_parts(path: Path, files: PartFiles, settings: KBSettings) -> None:
    """Reads the part of a dump that no earlier run has read."""
    if files.done.finished:
        print(f"{path.name} was read by an earlier run", file=sys.stderr)
        return
    if str(path) == STDIN:
        print("standard input: if interrupted, this build starts again", file=sys.stderr)
    with files, Blocks(path) as blocks:
        if done := files.done.content_end:
            again = "; the file must be decompressed again up to there"
            print(
                f"{path.name}: continuing after {files.done.num_entities:,} entities in "
                f"{done / _MEGABYTE:,.0f} MB that an earlier run read"
                f"{'' if path.suffix == '.json' else again}",
                file=sys.stderr,
            )
        total = int(blocks.size / _MEGABYTE) if blocks.size else None
        with progress(f"reading {path.name}", total=total, unit="MB") as bar:
            _read_chunks(blocks, files, settings, _Meter(bar, by_content=blocks.size is None))


def _read_chunks(blocks: Blocks, files: PartFiles, settings: KBSettings, meter: "_Meter") -> None:
    done = files.done
    chunks = cutting.read_chunks(blocks, start=done.content_end, first_line=done.next_line)
    first = list(islice(chunks, 1))
    if first and is_whole_file(first[0]):
        files.append(make_part(read_whole(first[0], chunks, LineDecoder(settings))))
        files.commit(finished=True)
        return
    workers = num_workers(settings)
    decoded = decode_chunks(
        chain(first, chunks), settings, workers=workers, folder=files.folder.parent
    )
    committed, end, line = time.monotonic(), done.content_end, done.next_line
    for item in decoded:
        end, line = item.chunk.end, item.chunk.next_line
        part, limit = item.part, settings.max_entities
        if limit is not None and done.num_entities + part.num_entities >= limit:
            files.append(item.again(limit - done.num_entities))
            decoded.close()
            break
        files.append(part)
        meter.show(item.chunk, done.num_entities)
        if time.monotonic() - committed >= COMMIT_SECONDS:
            files.commit(content_end=end, next_line=line)
            committed = time.monotonic()
    files.commit(content_end=end, next_line=line, finished=True)


class _Meter:
    """Shows how fast a dump is read."""

    def __init__(self, bar: Progress, *, by_content: bool):
        self._bar, self._by_content = bar, by_content
        self._start = 0.0
        self._first_end: int | None = None
        self._first_entities = 0

    def show(self, chunk: cutting.Chunk, num_entities: int) -> None:
        """Moves the bar to the end of a chunk."""
        at = int((chunk.end if self._by_content else chunk.position) / _MEGABYTE)
        if self._first_end is None:  # the rates are those of this run, also after a resume
            self._first_end, self._first_entities = chunk.end, num_entities
            self._start = time.monotonic()
            self._bar.skip(at)
            return
        seconds = max(time.monotonic() - self._start, 1e-9)
        content = (chunk.end - self._first_end) / _MEGABYTE / seconds
        entities = (num_entities - self._first_entities) / seconds
        rates = f"{rate(content, ' MB of JSON')}, {rate(entities, ' entities')}"
        self._bar.advance(at - self._bar.count, f"{num_entities:,} entities; {rates}")


def read_catalogue_parts(path: Path, records: Records, files: PartFiles) -> None:
    """Writes the `records` of a catalogue; an unfinished one is read from the start."""
    if files.done.finished:
        return
    with files, progress(f"reading {path.name}", unit="entities") as bar:
        for first in records:
            part = make_part(chain([first], islice(records, _CATALOGUE_ROWS - 1)))
            files.append(part)
            bar.advance(part.num_entities)
        files.commit(finished=True)
