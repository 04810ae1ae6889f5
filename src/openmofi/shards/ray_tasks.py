"""The Ray engine: one task per shard on a cluster that shares the job's directory.

Ray restarts a task if its process or node is lost; a shard whose task is lost repeatedly is
recorded as failed, and the job continues.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openmofi.errors import InputError, OpenMOFIError
from openmofi.shards.commits import Commit, publish
from openmofi.shards.plan import Shard
from openmofi.shards.worker import MakeFunction, ShardFunction, process

_RETRIES = 3
_KNOCK_SECONDS = 10.0


def import_ray() -> Any:
    """Returns the module ray.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "The ray engine needs Ray; install it with: pip install 'openmofi[ray]'."
        ) from None
    return ray


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Joins a Ray cluster or starts a local one, unless this process is already connected.

    Raises:
        InputError: Ray is not installed, or no cluster answers at the address.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    try:
        # Fail at once if nothing listens at the address; Ray would wait for minutes.
        host, colon, port = (address or "").rpartition(":")
        if colon and port.isdecimal() and "://" not in host:
            socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); start one with "
            "`ray start --head`, or leave --ray-address out."
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def run_ray(
    make_function: MakeFunction,
    shards: Sequence[Shard],
    out: Path,
    *,
    workers: int,
    retry: frozenset[str],
    count: Callable[[int], None],
) -> Generator[Commit, None, None]:
    """Yields commits as shards finish; takes the arguments of `local.run_local`.

    Raises:
        OutputError: results cannot be written.
    """
    ray = import_ray()
    work = ray.remote(_work).options(num_cpus=1, max_retries=_RETRIES)
    function = ray.put(make_function)
    waiting, running = iter(shards), {}
    try:
        while True:
            while len(running) < workers and (shard := next(waiting, None)) is not None:
                running[work.remote([function], shard, out.resolve(), retry)] = shard
            if not running:
                return
            [reference], _ = ray.wait(list(running), num_returns=1)
            yield _commit_of(ray, reference, running.pop(reference), out, retry)
    finally:
        for reference in running:
            ray.cancel(reference)


def _commit_of(ray: Any, reference: Any, shard: Shard, out: Path, retry: frozenset[str]) -> Commit:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, OpenMOFIError) else error from None
    except ray.exceptions.RayError as error:
        reason = f"Ray gave up after {_RETRIES} retries: {type(error).__name__}"
        return publish(Commit(shard.name, "failed", reason=reason), out, retry=retry)


_functions: dict[str, ShardFunction] = {}


def _work(function: list[Any], shard: Shard, out: Path, retry: frozenset[str]) -> Commit:
    """Processes a shard in a worker process of Ray, which keeps its function for later shards."""
    [reference] = function
    key = reference.hex()
    if key not in _functions:
        _functions.clear()  # those of an earlier job
        _functions[key] = import_ray().get(reference)()
    return process(_functions[key], shard, out, retry)
