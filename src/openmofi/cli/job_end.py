"""How the verbs that run over shards end: what they say of unfinished shards, and the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from openmofi.cli.output import quoted, say_troubled
from openmofi.errors import OpenMOFIError

if TYPE_CHECKING:
    from openmofi.shards import RunTotals

_ENDED_EARLY = 3


def say_unfinished(job: Path, totals: RunTotals) -> None:
    """Prints which shards failed or ended early, and how many are left to others."""
    from openmofi.shards import commits

    if totals.failed or totals.partial:
        say_troubled(job, [(c.shard, c.status, c.reason) for c in commits(job) if c.reason])
    if totals.left:
        print(f"{totals.left:,} of {totals.shards:,} shards are left to other ranks")


def end_job(job: Path, totals: RunTotals) -> None:
    """Ends the command with 3 if shards ended early.

    Raises:
        OpenMOFIError: shards failed.
    """
    if totals.failed:
        raise OpenMOFIError(
            f"{totals.failed} of {totals.shards} shards failed; fix the cause and repeat the "
            f"command to try them again (`openmofi status {quoted(job)}` lists the reasons)."
        )
    if totals.partial:
        sys.exit(_ENDED_EARLY)
