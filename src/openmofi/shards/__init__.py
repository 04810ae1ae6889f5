"""Runs one function over many shards, and survives: plan, claim, commit, resume, count.

    plan.parquet            the inputs, frozen with size and mtime
    run.json                what the outputs depend on; a run with another one is refused
    labels/<shard>-<id>.parquet   an attempt's rows; nobody reads it before its commit
    _done/<shard>.json      the commit: created exclusively, names the file, its sha256, counts
    events/<run>.jsonl      what happened when, a line each

A killed process leaves at most an uncommitted attempt behind; the same command goes on, and tries
failed shards again.
"""

from openmofi.shards.commits import (
    Commit,
    OutputError,
    RunTotals,
    ShardResult,
    commits,
    committed_files,
    totals,
)
from openmofi.shards.job import run_shards
from openmofi.shards.plan import Shard, freeze_plan, planned_shards
from openmofi.shards.status import JobStatus, status
from openmofi.shards.worker import tick, worker_number

__all__ = [
    "Commit",
    "JobStatus",
    "OutputError",
    "RunTotals",
    "Shard",
    "ShardResult",
    "commits",
    "committed_files",
    "freeze_plan",
    "planned_shards",
    "run_shards",
    "status",
    "tick",
    "totals",
    "worker_number",
]
