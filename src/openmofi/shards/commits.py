"""Commits: an attempt's tables on disk, and the record that makes them the shard's result.

Readers only see files that a record names, so that a half-written attempt is harmless.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError, OpenMOFIError
from openmofi.files.folders import replace_file, sync


class OutputError(OpenMOFIError):
    """Reports that results cannot be written; the job stops, but its commits are safe."""


@dataclass(frozen=True)
class ShardResult:
    """The result of the function for a shard."""

    table: pa.Table
    errors: dict[str, int] = field(default_factory=dict)
    """Number of refused rows by reason."""
    damage: str | None = None
    """Why the shard ended early, which makes the commit `partial`; None: it did not."""
    extra: dict[str, pa.Table] = field(default_factory=dict)
    """Further tables, each written to the folder of its name."""
    kept: int = 0
    """Number of rows that the next stage can use."""
    rows: int | None = None
    """Number of rows of the input; None: as many as the table has."""
    folder: str = "labels"
    """Folder of the table."""
    mapped: bool = False
    """Whether readers map the table, so that it is written as an Arrow file without compression."""
    looked: int = 0
    """Number of images that were looked at."""
    looked_twice: int = 0
    """Of these, the number that a second encoder looked at."""


@dataclass(frozen=True)
class Commit:
    """The record of a finished shard."""

    shard: str
    status: str
    """done | partial | failed."""
    file: str = ""
    sha256: str = ""
    rows: int = 0
    kept: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    """Why the shard is partial or failed."""
    extra: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    looked: int = 0
    looked_twice: int = 0


@dataclass(frozen=True)
class RunTotals:
    """Counts over all commits of a job."""

    shards: int
    done: int
    partial: int
    failed: int
    rows: int
    kept: int
    errors: dict[str, int]
    reasons: dict[str, int]
    """Number of partial or failed shards by reason."""
    looked: int = 0
    """Number of images that were looked at."""
    looked_twice: int = 0
    """Of these, the number that a second encoder looked at."""

    @property
    def left(self) -> int:
        """Number of shards without a commit."""
        return self.shards - self.done - self.partial - self.failed

    @property
    def error_rate(self) -> float:
        """Share of the rows that were refused."""
        return sum(self.errors.values()) / max(self.rows, 1)


def write_attempt(result: ShardResult, shard: str, out: Path, seconds: float) -> Commit:
    """Writes a shard's tables under unique names; returns the record, not yet published.

    Raises:
        OutputError: the disk is full or not writable.
    """
    attempt = f"{shard}-{uuid.uuid4().hex[:8]}"
    write, suffix = (write_arrow, "arrow") if result.mapped else (write_parquet, "parquet")
    file = f"{result.folder}/{attempt}.{suffix}"
    extra = {folder: f"{folder}/{attempt}.parquet" for folder in result.extra}
    with _stop_if_unwritable(out):
        for folder in (result.folder, *result.extra):
            (out / folder).mkdir(exist_ok=True)
        sha256 = write(result.table, out / file)
        for folder, table in result.extra.items():
            write_parquet(table, out / extra[folder])
    return Commit(
        shard,
        "partial" if result.damage else "done",
        file=file,
        sha256=sha256,
        rows=len(result.table) if result.rows is None else result.rows,
        kept=result.kept,
        errors=dict(sorted(result.errors.items())),
        reason=result.damage or "",
        extra=extra,
        seconds=round(seconds, 3),
        looked=result.looked,
        looked_twice=result.looked_twice,
    )


def write_parquet(table: pa.Table, path: Path) -> str:
    """Writes a file durably; returns its sha256."""
    with replace_file(path) as partial:
        pq.write_table(table, partial, compression="zstd")
        return _sha256(partial)


def write_arrow(table: pa.Table, path: Path) -> str:
    """Writes a file of one batch that can be mapped, durably; returns its sha256."""
    with replace_file(path) as partial:
        with pa.ipc.new_file(str(partial), table.schema) as writer:
            writer.write_table(table.combine_chunks())
        return _sha256(partial)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(commit: Commit, out: Path, *, retry: frozenset[str] = frozenset()) -> Commit:
    """Publishes a record; if another process was faster, its record is kept and returned.

    Args:
        commit: from `write_attempt`, or of a failure.
        out: the job's directory.
        retry: statuses of records that are replaced; but a failure never replaces a partial one.

    Raises:
        OutputError: the disk is full or not writable.
    """
    path = out / "_done" / f"{commit.shard}.json"
    with _stop_if_unwritable(out):
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.write_text(json.dumps(asdict(commit), indent=1))
            sync(temporary)
            standing = _link(temporary, path)
            if standing is not None and standing.status in retry:
                is_worse = (commit.status, standing.status) == ("failed", "partial")
                if not is_worse:
                    os.replace(temporary, path)
                    _remove_files(standing, out)
                    standing = None
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    if standing is not None:
        _remove_files(commit, out)
    return standing or commit


def _link(temporary: Path, path: Path) -> Commit | None:
    """Gives the file its name exclusively; returns the record if there already is one."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return read_commit(path)
    except OSError:
        # File systems without hard links. Between the check and the renaming another process may
        # publish; its result has the same rows, so that either record may be kept.
        if path.exists():
            return read_commit(path)
        os.rename(temporary, path)
    return None


def _remove_files(commit: Commit, out: Path) -> None:
    for file in (commit.file, *commit.extra.values()):
        if file:
            (out / file).unlink(missing_ok=True)


@contextmanager
def _stop_if_unwritable(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write to {str(out)!r}: {error.strerror or error}; fix that and repeat the "
            "command, which continues the job."
        ) from error


def read_commit(path: Path) -> Commit:
    """Returns the record of one shard.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return Commit(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise InputError(
            f"The record {str(path)!r} is damaged; delete it and repeat the command that wrote it, "
            "which redoes the shard."
        ) from None


def commits(out: Path) -> list[Commit]:
    """Returns the job's commits in shard order.

    Raises:
        InputError: `out` is not a job's directory, or a record is damaged.
    """
    if not is_job(out):
        raise no_job(out)
    return [read_commit(path) for path in sorted((out / "_done").glob("[!.]*.json"))]


def commits_of(out: Path, what: Literal["labels", "vectors"]) -> list[Commit]:
    """Returns the commits of the shards that have a table of labels or of vectors.

    Raises:
        InputError: as of `commits`, or there is none.
    """
    found = [commit for commit in commits(out) if commit.file.startswith(f"{what}/")]
    if not found:
        verb = {"labels": "label", "vectors": "embed"}[what]
        raise InputError(
            f"{str(out)!r} holds no {what} of a finished shard; make them with `openmofi {verb}`."
        )
    return found


def is_job(out: Path) -> bool:
    """Returns whether a folder is a job's directory."""
    return (out / "_done").is_dir()


def no_job(out: Path) -> InputError:
    """Returns the error of a folder that is not a job's directory."""
    return InputError(
        f"{str(out)!r} is not an output folder of `openmofi label`, `embed`, `caption` or "
        "`reinforce`; pass their --out."
    )


def statuses(out: Path) -> dict[str, str]:
    """Returns the status of every shard that has a commit."""
    return {commit.shard: commit.status for commit in commits(out)}


def committed_files(out: Path) -> list[Path]:
    """Returns the tables that commits name; no others may be read."""
    return [out / commit.file for commit in commits(out) if commit.file]


def totals(out: Path, shards: int) -> RunTotals:
    """Returns counts over the commits so far.

    Args:
        out: the job's directory.
        shards: number of shards of the whole job.
    """
    errors: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    status: Counter[str] = Counter()
    rows = kept = looked = twice = 0
    for commit in commits(out):
        errors.update(commit.errors)
        status[commit.status] += 1
        rows += commit.rows
        kept += commit.kept
        looked += commit.looked
        twice += commit.looked_twice
        if commit.reason:
            reasons[commit.reason] += 1
    return RunTotals(
        shards,
        status["done"],
        status["partial"],
        status["failed"],
        rows,
        kept,
        dict(errors.most_common()),
        dict(reasons.most_common()),
        looked,
        twice,
    )
