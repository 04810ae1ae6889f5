"""The verb `review preview`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import print_json, print_table, quoted, say_next

if TYPE_CHECKING:
    from openmofi.review.preview import Preview


@review_app.command
def preview(
    i2e: Path,
    /,
    *,
    name: str = "default",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show what all answers together would change, before they do.

    Example: openmofi review preview i2e

    Args:
        i2e: Output of `openmofi label`.
        name: The selection that is reviewed.
        as_json: Print the changes as JSON.
    """
    from openmofi.review.preview import preview as make_preview

    found = make_preview(i2e, name=name)
    if as_json:
        print_json(found)
        return
    say_changes(found, "change")
    say_next(f"openmofi review apply {quoted(i2e)} --name {quoted(name)}")


def say_changes(found: Preview, verb: str) -> None:
    """Prints how many labels change, and of which entities."""
    changed = found.added + found.removed
    print(
        f"{changed:,} of {found.labels:,} labels {verb} by {found.answers:,} answers: "
        f"{found.removed:,} go, {found.added:,} come, in {found.images:,} images"
    )
    rows = [(e["id"], e["label"], f"-{e['removed']:,}", f"+{e['added']:,}") for e in found.entities]
    if rows:
        print_table(("entity", "label", "go", "come"), rows)
