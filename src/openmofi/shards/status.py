"""The status of a job: the counts of its commits, and the speed of its runs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from openmofi.shards.commits import RunTotals, commits, no_job, totals
from openmofi.shards.events import process_of, read_events
from openmofi.shards.job import JobWords
from openmofi.shards.plan import planned_shards

_QUIET_SECONDS = 900.0
"""Time without an event after which a run on another machine counts as dead."""


@dataclass(frozen=True)
class JobStatus:
    """The status of a job."""

    words: JobWords
    totals: RunTotals
    left: int
    """Number of shards without a commit."""
    running: int
    """Number of active runs: on this machine, those whose process exists; on others, those that
    wrote an event in the last quarter of an hour."""
    rows_per_second: float | None
    """Total speed of the active runs, or that of the latest one."""
    seconds_left: float | None
    troubled: tuple[tuple[str, str, str], ...]
    """(shard, status, reason) of partial and failed shards."""


def status(out: Path | str) -> JobStatus:
    """Returns the status of a job from its commits and its event log.

    Raises:
        InputError: `out` is not a job's directory.
    """
    out = Path(out)
    if not (out / "plan.parquet").is_file():
        raise no_job(out)
    counts = totals(out, planned_shards(out))
    events = list(read_events(out))
    said = next((event for event in events if event["event"] == "begin"), {})
    words = JobWords(**{n: said[n] for n in ("verb", "rows", "kept") if n in said})
    runs = _runs(events)
    alive = [run for run in runs if run.alive]
    rate = sum(run.rate for run in alive or runs[-1:]) or None
    rows_per_shard = counts.rows / max(counts.done + counts.partial, 1)
    seconds = counts.left * rows_per_shard / rate if rate and alive else None
    troubled = tuple((c.shard, c.status, c.reason) for c in commits(out) if c.status != "done")
    return JobStatus(words, counts, counts.left, len(alive), rate, seconds, troubled)


@dataclass(frozen=True)
class _Run:
    alive: bool
    rate: float


def _runs(all_events: Iterable[dict[str, Any]]) -> list[_Run]:
    by_run: dict[str, list[dict[str, Any]]] = {}
    for event in all_events:
        by_run.setdefault(event["run"], []).append(event)
    now, runs = datetime.now(UTC), []
    for run, events in by_run.items():
        first, last = (datetime.fromisoformat(events[i]["time"]) for i in (0, -1))
        rows = sum(event.get("rows", 0) for event in events if event["event"] == "shard")
        ended = events[-1]["event"] == "end"
        silent = (now - last).total_seconds() > _QUIET_SECONDS
        alive = not ended and _goes_on(run, silent)
        runs.append(_Run(alive, rows / max((last - first).total_seconds(), 1e-3)))
    return runs


def _goes_on(run: str, silent: bool) -> bool:
    """Returns whether a run without an end event is still active."""
    host, process = process_of(run)
    if host != socket.gethostname():
        return not silent
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists, but belongs to another user
        return True
    return True
