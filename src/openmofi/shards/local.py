"""The local engine: spawned processes that take one shard at a time.

A process that dies (out of memory, a decoder's crash) is replaced and its shard tried once more; if
that process dies, too, the shard has failed and the job continues. If the main process dies, the
others end at the next row that they report.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
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
        shards: the shards to process.
        out: the job's directory.
        workers: number of processes; 1 is this one.
        retry: statuses whose records are replaced.
        count: called with the number of newly finished rows, also within shards.

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
    """The processes, which are replaced if they die."""

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
        """Waits for messages from the processes and answers them."""
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
        """Sends the next shard, or ends the process if there is none."""
        worker.ready = True
        worker.shard = waiting.popleft() if waiting else None
        with suppress(ConnectionError):  # it died, which the next `wait` reports
            worker.connection.send(worker.shard)
        if worker.shard is None:
            worker.process.join()
            del self._workers[number]

    def _bury(self, number: int, worker: _Worker, waiting: deque[Shard]) -> Iterator[Commit]:
        """Replaces a process that died; its shard is tried again or given up."""
        worker.process.join()
        del self._workers[number]
        code = worker.process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        if not worker.ready:
            raise OpenMOFIError(
                f"A worker process {how} before it could begin, perhaps for lack of memory; "
                "repeat the command with fewer --workers to continue."
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


def _serve(
    connection: Connection,
    number: int,
    make_function: MakeFunction,
    out: Path,
    retry: frozenset[str],
) -> None:
    """Processes the shards from the connection until None comes or the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C

    def tell(count: int) -> None:
        try:
            connection.send(count)
        except ConnectionError:  # the main process was killed, which is no error of the shard
            sys.exit()

    become_worker(number, tell)
    with suppress(EOFError, ConnectionError):
        try:
            function = make_function()
            connection.send("ready")
            while (shard := connection.recv()) is not None:
                connection.send(process(function, shard, out, retry))
        except OpenMOFIError as error:
            connection.send(error)
