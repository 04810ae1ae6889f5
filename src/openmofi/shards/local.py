"""The local engine: spawned processes, one shard at a time each.

A process that dies (memory, a decoder's crash) is replaced, and its shard tried once more; the
second death is the shard's own, and the job goes on.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from openmofi.errors import OpenMOFIError
from openmofi.shards.commits import Commit, publish
from openmofi.shards.plan import Shard
from openmofi.shards.worker import MakeFunction, become_worker, process

_ATTEMPTS = 2
_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    shard: Shard | None = None
    ready: bool = False


def run_local(
    make_function: MakeFunction,
    shards: Sequence[Shard],
    out: Path,
    *,
    workers: int,
    retry: frozenset[str],
    count: Callable[[int], None],
) -> Generator[Commit, None, None]:
    """Yields commits as shards finish.

    Args:
        make_function: builds the function once per process; picklable if there are several.
        shards: to be worked on.
        out: the job's directory.
        workers: processes; 1 is this one.
        retry: statuses whose records give way.
        count: is told how many more rows are done, within shards.

    Raises:
        OutputError: results cannot be written.
    """
    if workers > 1 and len(shards) > 1:
        yield from _Pool(make_function, out, retry, count).run(shards, min(workers, len(shards)))
        return
    function = make_function() if shards else None
    become_worker(0, count)
    try:
        for shard in shards:
            assert function is not None
            yield process(function, shard, out, retry)
    finally:
        become_worker()


class _Pool:
    """Processes that come and go while shards are worked on."""

    def __init__(
        self,
        make_function: MakeFunction,
        out: Path,
        retry: frozenset[str],
        count: Callable[[int], None],
    ):
        self._arguments = (make_function, out, retry)
        self._out, self._retry, self._count = out, retry, count
        self._workers: dict[int, _Worker] = {}
        self._deaths: Counter[str] = Counter()

    def run(self, shards: Sequence[Shard], workers: int) -> Iterator[Commit]:
        waiting = deque(shards)
        try:
            for number in range(workers):
                self._start(number)
            while self._workers:
                yield from self._listen(waiting)
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.join()

    def _start(self, number: int) -> None:
        ours, theirs = _SPAWN.Pipe()
        arguments = (theirs, number, *self._arguments)
        worker = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        self._workers[number] = _Worker(worker, ours)

    def _listen(self, waiting: deque[Shard]) -> Iterator[Commit]:
        """Waits until some process says something, and answers it."""
        ready = wait([worker.connection for worker in self._workers.values()])
        for number, worker in list(self._workers.items()):
            if worker.connection not in ready:
                continue
            try:
                said = worker.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(number, worker, waiting)
                continue
            if isinstance(said, OpenMOFIError):
                raise said
            if isinstance(said, int):
                self._count(said)
                continue
            if isinstance(said, Commit):
                yield said
            self._give(number, worker, waiting)

    def _give(self, number: int, worker: _Worker, waiting: deque[Shard]) -> None:
        """Sends the next shard; without one, the process is done."""
        worker.ready = True
        worker.shard = waiting.popleft() if waiting else None
        with suppress(BrokenPipeError):  # it died; the next `wait` says so
            worker.connection.send(worker.shard)
        if worker.shard is None:
            worker.process.join()
            del self._workers[number]

    def _bury(self, number: int, worker: _Worker, waiting: deque[Shard]) -> Iterator[Commit]:
        """Replaces a process that died; its shard is tried again, or given up."""
        worker.process.join()
        del self._workers[number]
        how = _cause(worker.process.exitcode)
        if not worker.ready:
            raise OpenMOFIError(
                f"A worker process {how} before it could begin, perhaps for want of memory; "
                "repeat the command with fewer --workers, and it goes on."
            )
        shard = worker.shard
        assert shard is not None
        self._deaths[shard.name] += 1
        if self._deaths[shard.name] < _ATTEMPTS:
            waiting.appendleft(shard)
        else:
            reason = f"worker {how}, {_ATTEMPTS} times"
            yield publish(Commit(shard.name, "failed", reason=reason), self._out, retry=self._retry)
        if waiting:
            self._start(number)


def _cause(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _serve(
    connection: Connection,
    number: int,
    make_function: MakeFunction,
    out: Path,
    retry: frozenset[str],
) -> None:
    """Works on what comes through the connection, until None comes or the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
    become_worker(number, connection.send)
    with suppress(EOFError, BrokenPipeError):
        try:
            function = make_function()
            connection.send("ready")
            while (shard := connection.recv()) is not None:
                connection.send(process(function, shard, out, retry))
        except OpenMOFIError as error:
            connection.send(error)
