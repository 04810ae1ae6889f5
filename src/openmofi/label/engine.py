"""Where a job that encodes images works: its rank, its processes or Ray tasks, their encoder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from openmofi.config import JobSettings
from openmofi.errors import InputError, SettingsError
from openmofi.label.encoder import Encoder, default_workers, start_encoders
from openmofi.pairs import Input
from openmofi.shards import JobWords, RunTotals, Shard, ShardResult, run_shards
from openmofi.shards.job import Engine, parse_retry
from openmofi.shards.ranks import Rank, choose_rank

PLACEMENT = frozenset(field.name for field in fields(JobSettings))
"""Settings that change where and when the work is done, but not its result."""


class MakeWorker(Protocol):
    """Makes a process's shard function."""

    def __call__(
        self, *, workers: int, encoder: Encoder | None = None
    ) -> Callable[[Shard], ShardResult]:
        """Returns the function; without an encoder it loads its own."""
        ...


def find_job_rank(settings: JobSettings) -> Rank:
    """Returns this process's part of the job, and checks the settings that say how it runs.

    Raises:
        SettingsError: the rank is not known, or does not fit the engine; or `retry` is wrong.
    """
    parse_retry(settings.retry)
    if settings.engine == "rank":
        return choose_rank(settings.rank, settings.world_size, os.environ)
    if settings.rank is not None or settings.world_size is not None:
        raise SettingsError("--rank and --world-size need --engine rank.")
    return Rank(0, 1, "alone")


def check_outside(out: Path, source: str, found: Input) -> None:
    """Rejects an output inside the input, where its tables would be read as input later.

    Raises:
        InputError: it lies there.
    """
    tars = all(shard.kind == "tar" for shard in found.shards)
    folder = Path(source)
    if folder.is_dir() and not tars and out.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"--out {str(out)!r} lies inside the input {source!r}, where its tables would "
            "be taken for shards the next time; choose a place outside it."
        )


def absolute_model(model: str) -> str:
    """Returns a directory's absolute path: other machines do not share the working directory."""
    return str(Path(model).resolve()) if Path(model).exists() else model


def absolute_root(found: Input) -> str:
    """Returns the input's root by a name that holds everywhere."""
    root = str(found.root)
    return root if "://" in root else os.path.realpath(root)


@dataclass(frozen=True)
class JobEngine:
    """The processes or tasks that work on a job's shards."""

    engine: Engine
    workers: int
    make: Callable[[], Any]
    """Makes the shard function of a process."""
    settings: JobSettings
    rank: Rank

    def run(self, shards: Sequence[Shard], out: Path, words: JobWords) -> RunTotals:
        """Runs the job; see `shards.run_shards`."""
        return run_shards(
            self.make,
            shards,
            out=out,
            engine=self.engine,
            workers=self.workers,
            rank=self.rank.number,
            world_size=self.rank.size,
            retry=self.settings.retry,
            fail_if_error_rate=self.settings.fail_if_error_rate,
            words=words,
        )


@contextmanager
def open_engine(
    make: MakeWorker,
    settings: JobSettings,
    rank: Rank,
    *,
    model: str | None,
    precision: str,
    others: Sequence[str] = (),
    threads: int = 1,
    then: str | None = None,
) -> Iterator[JobEngine]:
    """Yields what runs the job; on Ray it starts the actors that hold the encoder.

    Args:
        make: makes the shard function of a process.
        settings: where the job works.
        rank: of `find_job_rank`.
        model: hub id or directory of the encoder; None: there is none.
        precision: arithmetic of the encoder.
        others: further models that every process holds.
        threads: cores that a process keeps busy.
        then: a second encoder.
    """
    if settings.engine != "ray":
        held = [name for name in (model, then, *others) if name]
        workers = settings.workers or default_workers(held, settings.device, threads)
        yield JobEngine("local", workers, partial(make, workers=workers), settings, rank)
        return
    from openmofi.shards.ray_tasks import connected, import_ray

    with connected(settings.ray_address):
        resources = import_ray().cluster_resources()
        workers = settings.workers or int(resources.get("CPU", 1))
        count = settings.encoders
        if count is None:
            count = int(resources.get("GPU", 0)) if settings.device != "cpu" else 0
        remote: dict[str, Any] = {"encoder": None}
        if model and count:
            options: dict[str, Any] = {"device": settings.device, "precision": precision}
            options |= {"count": count, "share": 0.5 if then else 1.0}
            remote["encoder"] = start_encoders(model, **options)
            if then:
                remote["large"] = start_encoders(then, **options)
        made = partial(make, workers=workers, **remote)
        yield JobEngine("ray", workers, made, settings, rank)
