"""The verb `review apply`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.cli.review_preview import say_changes


@review_app.command
def apply(
    i2e: Path,
    /,
    *,
    name: str = "default",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Put what `review preview` showed in the place of the selection.

    The former selection stays as NAME.before until the next time, for `review undo --applied`.

    Example: openmofi review apply i2e

    Args:
        i2e: Output of `openmofi label`.
        name: The selection that is reviewed.
        as_json: Print the changes as JSON.
    """
    from openmofi.review.preview import apply as apply_answers

    found = apply_answers(i2e, name=name)
    if as_json:
        print_json(found)
        return
    print(f"wrote {i2e / 'select' / name}")
    say_changes(found, "changed")
    say_next(f"openmofi inspect {quoted(i2e)} --name {quoted(name)}")
