"""Decodes chunks of a dump in several processes and returns the results in order.

In: Chunks. Out: the Part of each, in the order of the dump. Only a few chunks are in progress at a
time, so memory stays flat. A chunk goes to its process through a file that later chunks use again:
copying through the page cache costs less than a pipe and, unlike shared memory, needs no setup in
containers.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.read.chunks import Chunk
from openmofi.kb.read.decode import LineDecoder
from openmofi.kb.read.parts import Part, make_part

# Chunks that wait in addition to those being decoded, so that no process has to wait for the next.
_WAITING = 2
# The first chunks are decoded in this process: starting others takes longer than a small dump.
_FREE_CHUNKS = 2


def num_workers(settings: KBSettings) -> int:
    """Returns the number of decoding processes: the setting, or one per core."""
    if settings.workers is not None:
        return settings.workers
    # Containers and batch systems often give a process fewer cores than the machine has.
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


@dataclass
class DecodedChunk:
    """A chunk and its records."""

    chunk: Chunk
    part: Part
    again: Callable[[int], Part]
    """Decodes it again, up to a number of entities."""


def decode_chunks(
    chunks: Iterator[Chunk], settings: KBSettings, *, workers: int, folder: Path
) -> Generator[DecodedChunk, None, None]:
    """Yields the decoded chunks in order.

    Args:
        chunks: whole lines of a dump.
        settings: what to keep.
        workers: number of processes; with one, everything happens in this process.
        folder: folder for the files through which the chunks go.

    Raises:
        InputError: a process died, for example because memory ran out.
    """
    for number, chunk in enumerate(chunks, 1):
        again = partial(_decode, chunk, settings)
        yield DecodedChunk(chunk, again(), again)
        if workers > 1 and number == _FREE_CHUNKS:
            yield from _decode_elsewhere(chunks, settings, workers, folder)


def _decode(chunk: Chunk, settings: KBSettings, limit: int | None = None) -> Part:
    lines = LineDecoder(settings).lines(chunk.data, chunk.first_line, chunk.damage)
    return make_part(lines, limit)


def _decode_elsewhere(
    chunks: Iterator[Chunk], settings: KBSettings, workers: int, folder: Path
) -> Iterator[DecodedChunk]:
    free = [folder / f"slot-{i}" for i in range(workers + _WAITING)]
    under_way: deque[tuple[Chunk, Path, Future[Part]]] = deque()
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        for chunk in chunks:
            slot = free.pop()
            _write_slot(slot, chunk.data)
            size, chunk = len(chunk.data), replace(chunk, data=b"")
            future = pool.submit(_decode_slot, slot, size, chunk, settings)
            under_way.append((chunk, slot, future))
            if not free:
                yield _result(under_way[0], settings)
                free.append(under_way.popleft()[1])
        while under_way:
            yield _result(under_way.popleft(), settings)
    except BrokenProcessPool:
        raise InputError(
            "A process that decodes the dump was ended from outside or could not start; run the "
            "same command again, which continues where this one stopped, perhaps with --workers 1, "
            "and in a script call build_kb only under if __name__ == '__main__'."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _result(item: tuple[Chunk, Path, Future[Part]], settings: KBSettings) -> DecodedChunk:
    chunk, slot, future = item
    part = future.result()

    def again(limit: int) -> Part:
        return _decode(replace(chunk, data=slot.read_bytes()), settings, limit)

    return DecodedChunk(chunk, part, again)


def _write_slot(slot: Path, data: bytes) -> None:
    # Overwritten in place, so that the pages of the earlier chunk are used again.
    with slot.open("r+b" if slot.exists() else "w+b", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        file.truncate()


def _decode_slot(slot: Path, size: int, chunk: Chunk, settings: KBSettings) -> Part:
    data = slot.read_bytes()
    assert len(data) == size, "a slot was overwritten while it was in use"
    return _decode(replace(chunk, data=data), settings)


def _start_worker() -> None:
    """Leaves Ctrl-C to the main process, and ends this one when the main process dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
