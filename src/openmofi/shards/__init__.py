"""Runs one function over many shards and survives interruptions: plan, commit, resume, count.

    plan.parquet            the inputs, frozen with size and mtime
    run.json                what the outputs depend on; a run with other contents is rejected
    labels/<shard>-<id>.parquet   the rows of an attempt, which is not read before its commit;
                            those of `embed` are in vectors/
    _done/<shard>.json      the commit: created exclusively, with the file's name, sha256 and counts
    events/<run>.jsonl      what happened and when, one event per line

A killed process leaves at most an uncommitted attempt; repeating the command continues the job and
tries failed shards again.
"""

from openmofi.shards.commits import (
    Commit,
    OutputError,
    RunTotals,
    ShardResult,
    commits,
    commits_of,
    committed_files,
    is_job,
    totals,
)
from openmofi.shards.job import JobWords, run_shards
from openmofi.shards.plan import Shard, freeze_plan, plan_table, planned_shards
from openmofi.shards.status import JobStatus, status
from openmofi.shards.worker import tick, worker_number

__all__ = [
    "Commit",
    "JobStatus",
    "JobWords",
    "OutputError",
    "RunTotals",
    "Shard",
    "ShardResult",
    "commits",
    "commits_of",
    "committed_files",
    "freeze_plan",
    "is_job",
    "plan_table",
    "planned_shards",
    "run_shards",
    "status",
    "tick",
    "totals",
    "worker_number",
]
