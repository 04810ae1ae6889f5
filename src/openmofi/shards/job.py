"""A job: runs the unfinished shards on an engine, with progress, events and an early end."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from openmofi.errors import OpenMOFIError, SettingsError
from openmofi.progress import Progress, progress, rate
from openmofi.shards.commits import Commit, RunTotals, statuses, totals
from openmofi.shards.events import EventLog
from openmofi.shards.local import run_local
from openmofi.shards.plan import Shard, renew_plan
from openmofi.shards.worker import MakeFunction

Engine = Literal["local", "ray"]

_FEWEST_ROWS = 1000
"""Number of rows from which an error rate is meaningful."""
_SHOWN_REASONS = 3


@dataclass(frozen=True)
class JobWords:
    """How a job speaks of what it does."""

    verb: str = "label"
    rows: str = "pairs"
    """What a row is."""
    kept: str = "to choose from"
    """What is said of rows that the next stage can use."""


class TooManyErrors(OpenMOFIError):
    """Reports that more rows were refused than the user allows."""


def parse_retry(text: str) -> frozenset[str]:
    """Parses a list of statuses such as "failed,partial", or "none".

    Raises:
        SettingsError: a status does not exist.
    """
    asked = frozenset(part.strip() for part in text.split(",")) - {"none", ""}
    if asked - {"failed", "partial"}:
        raise SettingsError(
            f"Setting 'retry' cannot be {text!r}; expected failed, partial, failed,partial or none."
        )
    return asked


def run_shards(
    make_function: MakeFunction,
    shards: Sequence[Shard],
    *,
    out: Path,
    engine: Engine = "local",
    workers: int = 1,
    rank: int = 0,
    world_size: int = 1,
    retry: str = "failed",
    fail_if_error_rate: float = 1.0,
    words: JobWords = JobWords(),
) -> RunTotals:
    """Runs the function over every shard that has no commit yet.

    Args:
        make_function: builds the function once per process; picklable if workers > 1.
        shards: all shards of the job, in order.
        out: the job's directory, after `freeze_plan`.
        engine: local: processes of this machine; ray: tasks of the connected Ray cluster.
        workers: number of processes, or of concurrent Ray tasks; 1 local worker is this process.
        rank: this process's number among the `world_size` that share the job through `out`.
        world_size: this process takes every world_size-th shard.
        retry: statuses to try again: failed, partial, failed,partial or none.
        fail_if_error_rate: share of refused rows above which no further shard is started.
        words: how its progress, its log and its errors speak of it.

    Raises:
        MismatchError: a shard that ended early has changed, and `retry` excludes it.
        OutputError: results cannot be written.
        TooManyErrors: more rows are refused than `fail_if_error_rate` allows.
        OpenMOFIError: no other process shares the job, but a shard has no commit.
    """
    again = parse_retry(retry)
    renew_plan(out, shards, again)
    mine = [shard for i, shard in enumerate(shards) if i % world_size == rank]
    finished = {name for name, status in statuses(out).items() if status not in again}
    pending = [shard for shard in mine if shard.name not in finished]
    log = EventLog(out)
    settings = {"engine": engine, "workers": workers, "rank": rank, "world_size": world_size}
    log.write("begin", **asdict(words), shards=len(mine), pending=len(pending), **settings)
    try:
        with progress(words.verb, total=len(mine), unit="shards") as bar:
            bar.skip(len(mine) - len(pending))
            live = _Live(bar, log, words)
            options = {"workers": workers, "retry": again, "count": live.count}
            run_engine = run_local
            if engine == "ray":
                from openmofi.shards.ray_tasks import run_ray

                run_engine = run_ray
            with closing(run_engine(make_function, pending, out, **options)) as run:
                _watch(run, live, fail_if_error_rate)
    except BaseException as error:
        log.write("stop", reason=str(error) or type(error).__name__)
        raise
    finally:
        found = totals(out, len(shards))
        log.write("end", rows=found.rows, done=found.done, failed=found.failed)
        log.close()
    if world_size == 1 and found.left:
        raise OpenMOFIError(
            f"{found.left:,} of {found.shards:,} shards are unfinished in {str(out)!r}; repeat the "
            "command."
        )
    if found.error_rate > fail_if_error_rate:
        raise _too_many(found.error_rate, fail_if_error_rate, words)
    return found


def _watch(run: Iterator[Commit], live: _Live, most: float) -> None:
    """Follows the engine; leaving it early ends its processes."""
    for commit in run:
        live.add(commit)
        refused = sum(live.errors.values()) / max(live.rows, 1)
        if live.rows >= _FEWEST_ROWS and refused > most:
            raise _too_many(refused, most, live.words)


def _too_many(share: float, most: float, words: JobWords) -> TooManyErrors:
    return TooManyErrors(
        f"{share:.1%} of the {words.rows} were refused, more than --fail-if-error-rate "
        f"{most:g} allows; `openmofi status` lists the reasons."
    )


class _Live:
    """What this run has done so far, shown after the progress bar and in the log."""

    def __init__(self, bar: Progress, log: EventLog, words: JobWords):
        self._bar, self._log, self.words = bar, log, words
        self._began = time.monotonic()
        self._ticked = self.rows = self.kept = 0
        self.errors: Counter[str] = Counter()

    def count(self, rows: int) -> None:
        """Counts rows of unfinished shards."""
        self._ticked += rows
        self._bar.advance(0, note=self._note())

    def add(self, commit: Commit) -> None:
        """Counts a finished shard."""
        self.rows += commit.rows
        self.kept += commit.kept
        self.errors.update(commit.errors)
        self._bar.advance(1, note=self._note())
        self._log.write(
            "shard",
            shard=commit.shard,
            status=commit.status,
            rows=commit.rows,
            kept=commit.kept,
            errors=commit.errors,
            reason=commit.reason,
            seconds=commit.seconds,
        )

    def _note(self) -> str:
        rows = max(self._ticked, self.rows)
        note = f"{rows:,} {self.words.rows}"
        if rows:
            note += f", {rate(rows / max(time.monotonic() - self._began, 1e-9))}"
        if self.rows:
            note += f", {self.kept / self.rows:.0%} {self.words.kept}"
        for reason, count in self.errors.most_common(_SHOWN_REASONS):
            note += f", {reason} {count:,}"
        return note
