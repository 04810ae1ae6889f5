"""Runs one function over many shards, and survives: plan, claim, commit, resume, count.

    plan.parquet            the inputs, frozen with size and mtime
    run.json                what the outputs depend on; a run with another one is refused
    labels/<shard>-<id>.parquet   an attempt's rows; nobody reads it before its commit
    _done/<shard>.json      the commit: created exclusively, names the file, its sha256, counts

A killed process leaves at most an uncommitted attempt behind; the same command goes on, and tries
failed shards again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError, MismatchError, OpenMOFIError
from openmofi.progress import progress


@dataclass(frozen=True)
class Shard:
    """A part of the input that is read in one go."""

    name: str
    """Unique within the input; a file name without its suffix."""
    path: str
    """Relative to the input's root."""
    kind: str
    """tar | parquet | folder."""
    size: int
    """Bytes on disk; with mtime_ns it tells whether the file is still the same."""
    mtime_ns: int


@dataclass(frozen=True)
class ShardResult:
    """What the function made of a shard."""

    table: pa.Table
    errors: dict[str, int] = field(default_factory=dict)
    """Refused rows by reason; they are rows of the table too."""
    damage: str | None = None
    """Why the shard ended early; the commit says `partial` then."""
    extra: dict[str, pa.Table] = field(default_factory=dict)
    """Further tables, written to a folder of that name."""


@dataclass(frozen=True)
class Commit:
    """The record of a finished shard."""

    shard: str
    status: str
    """done | partial | failed."""
    file: str = ""
    sha256: str = ""
    rows: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunTotals:
    """Counts over all commits of a job."""

    shards: int
    done: int
    partial: int
    failed: int
    rows: int
    errors: dict[str, int]
    reasons: dict[str, int]
    """Why shards are partial or failed."""


ShardFunction = Callable[[Shard], ShardResult]


def freeze_plan(out: Path, shards: Sequence[Shard], run: dict[str, Any]) -> None:
    """Writes plan.parquet and run.json, or checks that the ones there are the same.

    A shard that failed, or was not read yet, may have been mended since.

    Raises:
        MismatchError: `out` was made from other inputs or settings.
    """
    (out / "_done").mkdir(parents=True, exist_ok=True)
    (out / "labels").mkdir(exist_ok=True)
    plan = [asdict(shard) for shard in shards]
    _freeze(out / "run.json", run, out)
    plan_file = out / "plan.parquet"
    if not plan_file.is_file():
        _write_parquet(pa.Table.from_pylist(plan), plan_file)
        return
    before = {row["name"]: row for row in pq.read_table(plan_file).to_pylist()}
    changed = [row["name"] for row in plan if before.get(row["name"]) != row]
    if before.keys() == {shard.name for shard in shards}:
        mended = [name for name in changed if not _is_labelled(out, name)]
        if mended and len(mended) == len(changed):
            _write_parquet(pa.Table.from_pylist(plan), plan_file)
            return
    changed += [name for name in before if name not in {row["name"] for row in plan}]
    if changed:
        raise MismatchError(
            f"{len(changed)} input shards changed since {str(out)!r} was begun ({changed[0]}, ...);"
            " choose another --out."
        )


def _is_labelled(out: Path, shard: str) -> bool:
    path = _commit_path(out, shard)
    return path.exists() and _read_commit(path).status != "failed"


def _freeze(path: Path, run: dict[str, Any], out: Path) -> None:
    if not path.is_file():
        temporary = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
        temporary.write_text(json.dumps(run, indent=2, sort_keys=True) + "\n")
        os.replace(temporary, path)
        return
    before = json.loads(path.read_text())
    for key in sorted(before.keys() | run.keys()):
        if before.get(key) != run.get(key):
            raise MismatchError(
                f"{str(out)!r} was begun with {key} = {before.get(key)!r}, not {run.get(key)!r}; "
                "repeat that, or choose another --out."
            )


def run_shards(
    make_function: Callable[[], ShardFunction],
    shards: Sequence[Shard],
    *,
    out: Path,
    workers: int = 1,
    rank: int = 0,
    world_size: int = 1,
    title: str = "label",
) -> RunTotals:
    """Runs the function over every shard that has no commit yet.

    Args:
        make_function: builds the function once per process; picklable if workers > 1.
        shards: all shards of the job, in order.
        out: the job's directory, after `freeze_plan`.
        workers: processes on this machine; 1 runs in this one.
        rank: this process's number among `world_size` that share the job through `out`.
        world_size: every world_size-th shard is this process's.
        title: name of the progress bar.
    """
    mine = [shard for i, shard in enumerate(shards) if i % world_size == rank]
    for shard in mine:
        _forget_failure(out, shard.name)
    pending = [shard for shard in mine if not _commit_path(out, shard.name).exists()]
    with progress(title, total=len(mine), unit="shards") as bar:
        bar.advance(len(mine) - len(pending))
        rows = 0
        for commit in _run(make_function, pending, out, workers):
            rows += commit.rows
            bar.advance(note=f"{rows:,} rows")
    return totals(out, len(shards))


def _run(
    make_function: Callable[[], ShardFunction], pending: list[Shard], out: Path, workers: int
) -> Iterator[Commit]:
    if workers <= 1 or len(pending) <= 1:
        if pending:
            function = make_function()
            for shard in pending:
                yield _process(function, shard, out)
        return
    spawn = multiprocessing.get_context("spawn")
    count = min(workers, len(pending))
    with ProcessPoolExecutor(count, spawn, _start_worker, (make_function, out)) as pool:
        try:
            for future in as_completed([pool.submit(_work, shard) for shard in pending]):
                yield future.result()
        except BrokenProcessPool:
            raise OpenMOFIError(
                "A worker process died, perhaps for want of memory; what is finished is safe, so "
                "repeat the command with fewer --workers, and it goes on."
            ) from None


_worker: tuple[ShardFunction, Path] | None = None


def _start_worker(make_function: Callable[[], ShardFunction], out: Path) -> None:
    global _worker
    _worker = (make_function(), out)


def _work(shard: Shard) -> Commit:
    assert _worker is not None
    return _process(_worker[0], shard, _worker[1])


def _process(function: ShardFunction, shard: Shard, out: Path) -> Commit:
    """Runs and commits one shard; what goes wrong with it is recorded, and the job goes on."""
    try:
        result = function(shard)
    except (InputError, OSError) as error:
        commit = Commit(shard.name, "failed", reason=str(error))
    except Exception as error:
        (out / f"_done/{shard.name}.traceback").write_text(traceback.format_exc())
        commit = Commit(shard.name, "failed", reason=f"{type(error).__name__}: {error}")
    else:
        commit = _write(result, shard, out)
    return _commit(commit, out)


def _write(result: ShardResult, shard: Shard, out: Path) -> Commit:
    attempt = f"{shard.name}-{uuid.uuid4().hex[:8]}.parquet"
    digest = _write_parquet(result.table, out / "labels" / attempt)
    extra = {}
    for folder, table in result.extra.items():
        (out / folder).mkdir(exist_ok=True)
        _write_parquet(table, out / folder / attempt)
        extra[folder] = f"{folder}/{attempt}"
    return Commit(
        shard.name,
        "partial" if result.damage else "done",
        file=f"labels/{attempt}",
        sha256=digest,
        rows=len(result.table),
        errors=dict(result.errors),
        reason=result.damage or "",
        extra=extra,
    )


def _write_parquet(table: pa.Table, path: Path) -> str:
    """Writes durably and returns the file's sha256."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    pq.write_table(table, temporary, compression="zstd")
    with temporary.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return digest


def _forget_failure(out: Path, shard: str) -> None:
    """Removes the record of a failure, so that the shard is tried again."""
    path = _commit_path(out, shard)
    if path.exists() and _read_commit(path).status == "failed":
        path.unlink(missing_ok=True)
        path.with_suffix(".traceback").unlink(missing_ok=True)


def _commit_path(out: Path, shard: str) -> Path:
    return out / "_done" / f"{shard}.json"


def _commit(commit: Commit, out: Path) -> Commit:
    """Publishes the record; if another process was faster, its record stands."""
    path = _commit_path(out, commit.shard)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with temporary.open("w") as file:
        json.dump(asdict(commit), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # whole and exclusive in one step
    except FileExistsError:
        commit = _read_commit(path)
    finally:
        temporary.unlink()
    return commit


def _read_commit(path: Path) -> Commit:
    return Commit(**json.loads(path.read_text()))


def commits(out: Path) -> list[Commit]:
    """Returns the job's commits in shard order.

    Raises:
        InputError: `out` is no output of `openmofi label`.
    """
    if not (out / "_done").is_dir():
        raise InputError(f"{str(out)!r} is no output of `openmofi label`; pass its --out folder.")
    return [_read_commit(path) for path in sorted((out / "_done").glob("[!.]*.json"))]


def committed_files(out: Path) -> list[Path]:
    """Returns the label files that commits name; nothing else may be read."""
    return [out / commit.file for commit in commits(out) if commit.file]


def planned_shards(out: Path) -> int:
    """Returns the number of shards of the whole job, finished or not."""
    return pq.read_metadata(out / "plan.parquet").num_rows


def totals(out: Path, shards: int) -> RunTotals:
    """Returns counts over the commits so far."""
    errors: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    status: Counter[str] = Counter()
    rows = 0
    for commit in commits(out):
        errors.update(commit.errors)
        status[commit.status] += 1
        rows += commit.rows
        if commit.reason:
            reasons[commit.reason] += 1
    return RunTotals(
        shards,
        status["done"],
        status["partial"],
        status["failed"],
        rows,
        dict(errors),
        dict(reasons),
    )
