"""The verb `review undo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.errors import SettingsError


@review_app.command
def undo(
    i2e: Path,
    ids: Annotated[list[str] | None, Parameter(negative=())] = None,
    /,
    *,
    last: int | None = None,
    applied: bool = False,
    name: str = "default",
    by: str = "",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Take answers back; nothing is deleted, and an undo can be undone by its own id.

    Example: openmofi review undo i2e --last 3

    Args:
        i2e: Output of `openmofi label`.
        ids: Ids of answers, as `openmofi review list` prints them.
        last: How many of the last answers, instead of ids.
        applied: Those of the last `openmofi review apply`; the selection from before it returns.
        name: The selection, for --applied.
        by: Who says so.
        as_json: Print how many were undone as JSON.
    """
    from openmofi.review import give, preview

    if (bool(ids) + (last is not None) + applied) != 1:
        raise SettingsError("Say what to undo: ids of answers, --last N or --applied.")
    if last is not None and last < 1:
        raise SettingsError(f"--last {last} is no number of answers; give 1 or more.")
    if applied:
        count = preview.revert(i2e, name=name, by=by)
    else:
        count = len(preview.undo(i2e, ids or give.last_answers(i2e, last or 0), by=by))
    if as_json:
        print_json({"undone": count})
        return
    print(f"undid {count:,} answers")
    if not applied:
        say_next(f"openmofi review preview {quoted(i2e)}")
