"""What a process that works on shards does: make the function, run it, commit.

A shard function may ask for its process's number, to choose a GPU, and report its progress with
`tick`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from openmofi.errors import InputError
from openmofi.shards.commits import Commit, ShardResult, publish, write_attempt
from openmofi.shards.plan import Shard

ShardFunction = Callable[[Shard], ShardResult]
MakeFunction = Callable[[], ShardFunction]


def _count_nothing(count: int) -> None:
    """Ignores the count."""


_number = 0
_sink: Callable[[int], None] = _count_nothing


def worker_number() -> int:
    """Returns this process's number, from 0, among those of its job on this machine."""
    return _number


def tick(count: int) -> None:
    """Reports that `count` more rows of the current shard are done."""
    _sink(count)


def become_worker(number: int = 0, sink: Callable[[int], None] = _count_nothing) -> None:
    """Sets what `worker_number` and `tick` refer to in this process."""
    global _number, _sink
    _number, _sink = number, sink


def process(function: ShardFunction, shard: Shard, out: Path, retry: frozenset[str]) -> Commit:
    """Runs and commits one shard; an error is recorded, and the job continues.

    Raises:
        OutputError: the result cannot be written, as for any other shard.
    """
    began = time.monotonic()
    try:
        result = function(shard)
    except (InputError, OSError) as error:
        return publish(Commit(shard.name, "failed", reason=str(error)), out, retry=retry)
    except Exception as error:
        with suppress(OSError):
            (out / "_done" / f"{shard.name}.traceback").write_text(traceback.format_exc())
        reason = f"{type(error).__name__}: {error}"
        return publish(Commit(shard.name, "failed", reason=reason), out, retry=retry)
    commit = write_attempt(result, shard.name, out, time.monotonic() - began)
    return publish(commit, out, retry=retry)
