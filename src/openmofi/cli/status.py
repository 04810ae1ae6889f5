"""The verb `status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, app
from openmofi.cli.output import print_json, print_table, say_troubled
from openmofi.progress import duration, rate


@app.command
def status(job: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Show the status of a job over shards: what is done, what failed and why, the time left.

    Example: openmofi status i2e

    Args:
        job: Output folder of `openmofi label`, `embed` or `reinforce`, finished or not; of an
            interrupted embed --out FILE.parquet, the folder FILE.parquet.shards.
        as_json: Print JSON.
    """
    from openmofi.shards import status as read_status

    found = read_status(job)
    if as_json:
        print_json(found)
        return
    counts, words = found.totals, found.words
    speed = rate(found.rows_per_second, f" {words.rows}") if found.rows_per_second else "-"
    left = "-" if found.seconds_left is None else duration(found.seconds_left)
    rows = [
        ("shards", f"{counts.shards:,}"),
        *((name, f"{getattr(counts, name):,}") for name in ("done", "partial", "failed")),
        ("left", f"{found.left:,}"),
        (words.rows, f"{counts.rows:,}"),
        (words.kept, f"{counts.kept:,} ({counts.kept / max(counts.rows, 1):.1%})"),
        *((f"refused: {reason}", f"{count:,}") for reason, count in counts.errors.items()),
        ("running", f"{found.running:,}"),
        ("speed", speed),
        ("time left", left),
    ]
    print_table(("", ""), rows)
    say_troubled(job, found.troubled)
