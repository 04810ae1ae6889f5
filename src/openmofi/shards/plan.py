"""The plan: the shards, frozen when the job begins, and what its outputs depend on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import MismatchError
from openmofi.files.folders import replace_file
from openmofi.shards.commits import statuses, write_parquet


@dataclass(frozen=True)
class Shard:
    """A part of the input that is read in one go."""

    name: str
    """Unique within the input; a file name without its suffix."""
    path: str
    """Relative to the input's root."""
    kind: str
    """Its format: tar, parquet, arrow or folder; see pairs.formats."""
    size: int
    """Bytes on disk; with mtime_ns, they tell whether the file has changed."""
    mtime_ns: int
    start: int = 0
    """First row of the file that belongs to the shard."""
    stop: int | None = None
    """Row behind the last one; None: the file's end."""


_PLAN = pa.schema(
    [
        ("name", pa.string()),
        ("path", pa.string()),
        ("kind", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
    ]
)


def freeze_plan(out: Path, shards: Sequence[Shard], run: dict[str, Any]) -> None:
    """Writes plan.parquet and run.json, or checks that existing ones are the same.

    A shard that ended early may have been fixed in the meantime; see `renew_plan`.

    Raises:
        MismatchError: `out` was made from other inputs or settings.
    """
    for folder in ("_done", "events"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    _freeze_run(out, run)
    plan = plan_table(shards)
    plan_file = out / "plan.parquet"
    if not plan_file.is_file():
        write_parquet(plan, plan_file)
        return
    before = pq.read_table(plan_file)
    if before.equals(plan):
        return
    changed = _changed(before, plan)
    done = {name for name, status in statuses(out).items() if status == "done"}
    lost = set(before["name"].to_pylist()) ^ set(plan["name"].to_pylist())
    if lost or changed & done:
        first = min(lost or changed & done)
        raise MismatchError(
            f"{len(changed)} input shards have changed since {str(out)!r} was begun ({first}, ...);"
            " choose another --out."
        )


def renew_plan(out: Path, shards: Sequence[Shard], again: frozenset[str]) -> None:
    """Updates plan.parquet for changed shards that are to be read, or read again.

    Args:
        out: the job's directory, after `freeze_plan`.
        shards: all shards of the job in their current state.
        again: statuses of shards to be read again.

    Raises:
        MismatchError: a shard that ended early has changed but would not be read again, so that
            its rows would point into another file than they were made from.
    """
    before = pq.read_table(out / "plan.parquet")
    plan = plan_table(shards)
    if before.equals(plan):
        return
    changed = _changed(before, plan)
    status = statuses(out)
    stale = {name for name in changed if status.get(name) == "partial"}
    if stale and "partial" not in again:
        raise MismatchError(
            f"{len(stale)} input shards that ended early have changed ({min(stale)}, ...); add "
            "--retry partial to read them again, or choose another --out."
        )
    write_parquet(plan, out / "plan.parquet")


def plan_table(shards: Sequence[Shard]) -> pa.Table:
    """Returns plan.parquet of these shards."""
    return pa.Table.from_pylist([asdict(shard) for shard in shards], schema=_PLAN)


def _changed(before: pa.Table, after: pa.Table) -> set[str]:
    old = {row["name"]: row for row in before.to_pylist()}
    new = {row["name"]: row for row in after.to_pylist()}
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _freeze_run(out: Path, run: dict[str, Any]) -> None:
    path = out / "run.json"
    if not path.is_file():
        with replace_file(path) as partial:
            partial.write_text(json.dumps(run, indent=2, sort_keys=True) + "\n")
        return
    before = json.loads(path.read_text())
    for key in sorted(before.keys() | run.keys()):
        if before.get(key) != run.get(key):
            raise MismatchError(
                f"{str(out)!r} was begun with {_difference(key, before.get(key), run.get(key))}; "
                "repeat that, or choose another --out."
            )


def _difference(key: str, before: Any, now: Any) -> str:
    """Returns "key = before, not now" for the first part that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        part = next(k for k in sorted(before.keys() | now.keys()) if before.get(k) != now.get(k))
        return _difference(f"{key}.{part}", before.get(part), now.get(part))
    return f"{key} = {before!r}, not {now!r}"


def planned_shards(out: Path) -> int:
    """Returns the number of shards of the whole job, finished or not."""
    return pq.read_metadata(out / "plan.parquet").num_rows
