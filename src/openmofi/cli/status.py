"""The verb `status`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, app
from openmofi.cli.output import print_json, print_table, say_troubled
from openmofi.progress import duration, rate


@app.command
def status(i2e: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Show the status of a labelling job: what is done, what failed and why, and the time left.

    Example: openmofi status i2e

    Args:
        i2e: Output of `openmofi label`, finished or not.
        as_json: Print JSON.
    """
    from openmofi.shards import status as read_status

    found = read_status(i2e)
    if as_json:
        print_json(found)
        return
    counts = found.totals
    speed = rate(found.rows_per_second, " pairs") if found.rows_per_second else "-"
    left = "-" if found.seconds_left is None else duration(found.seconds_left)
    rows = [
        ("shards", f"{counts.shards:,}"),
        *((name, f"{getattr(counts, name):,}") for name in ("done", "partial", "failed")),
        ("left", f"{found.left:,}"),
        ("pairs", f"{counts.rows:,}"),
        ("to choose from", f"{counts.kept:,} ({counts.kept / max(counts.rows, 1):.1%})"),
        *((f"refused: {reason}", f"{count:,}") for reason, count in counts.errors.items()),
        ("running", f"{found.running:,}"),
        ("speed", speed),
        ("time left", left),
    ]
    print_table(("", ""), rows)
    say_troubled(i2e, found.troubled)
