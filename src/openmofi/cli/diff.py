"""The verb `diff`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, Out, app
from openmofi.cli.output import print_json, print_table, quoted, say_next

if TYPE_CHECKING:
    from openmofi.diff.summary import DiffSummary


@app.command
def diff(
    before: Path,
    after: Path,
    /,
    *,
    out: Annotated[Path | None, Out] = None,
    table: Annotated[Path | None, Out] = None,
    images: int = 60,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Find every label that was gained, lost or changed, and the cause of each.

    Example: openmofi diff i2e/select/default i2e/select/strict --out diff.html

    Args:
        before: Output of `openmofi label`, or a selection from it, such as i2e/select/default.
        after: The other one, of the same kind.
        out: HTML page to write, with examples of every cause.
        table: Parquet file to write, with a row per change.
        images: Examples on the page.
        as_json: Print the counts as JSON.
    """
    from openmofi.diff import diff as run_diff

    summary = run_diff(before, after, out=out, table=table, images=images)
    if as_json:
        print_json(summary)
        return
    _say(summary)
    for path, what in ((table, f"{summary.changes:,} changes"), (out, "examples of every cause")):
        if path is not None:
            print(f"wrote {path} ({what})")
    if out is None and summary.changes:
        say_next(f"openmofi diff {quoted(before)} {quoted(after)} --out diff.html")


def _say(summary: DiffSummary) -> None:
    """Prints the counts."""
    from openmofi.diff.causes import MEANINGS

    print(
        f"{summary.labels_before:,} labels before, {summary.labels_after:,} after: "
        f"{summary.gained:,} gained, {summary.lost:,} lost, {summary.changed:,} changed, "
        f"{summary.kept:,} in both ({summary.kept_with_other_score:,} with another score)"
    )
    if summary.pairs_only_before or summary.pairs_only_after:
        print(
            f"{summary.pairs_in_both:,} pairs are in both, {summary.pairs_only_before:,} only "
            f"before, {summary.pairs_only_after:,} only after"
        )
    meanings = {cause.title: meaning for cause, meaning in MEANINGS.items()}
    rows = [
        (
            name,
            *(f"{counts[k]:,}" for k in ("changes", "gained", "lost", "changed")),
            meanings[name],
        )
        for name, counts in summary.causes.items()
    ]
    if rows:
        print_table(("cause", "changes", "gained", "lost", "changed", ""), rows)
