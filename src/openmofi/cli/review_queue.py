"""The verb `review queue`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import brief, print_json, print_table, quoted, say_next


@review_app.command
def queue(
    i2e: Path,
    /,
    *,
    name: str = "default",
    k: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 10,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show which labels are most worth checking: whose answer would change most labels.

    Example: openmofi review queue i2e --k 20

    Args:
        i2e: Output of `openmofi label`.
        name: The selection that is reviewed.
        k: Most questions.
        as_json: Print the questions as JSON.
    """
    from openmofi.review.questions import open_questions

    questions = open_questions(i2e, name=name).first(k)
    if as_json:
        print_json(questions)
        return
    rows = [
        (
            one.key,
            brief(one.caption, 60),
            one.name,
            f"{one.candidates[0].label} ({one.candidates[0].id})",
            f"{one.candidates[0].score:.2f}",
            "kept" if one.kept else "refused",
            f"{one.changes:,.1f}",
        )
        for one in questions
    ]
    print_table(("key", "caption", "name", "means", "score", "now", "changes"), rows)
    if questions:
        one = questions[0]
        say_next(
            f"openmofi review answer right {quoted(i2e)} --key {quoted(one.key)} --called "
            f"{quoted(one.name)} --entity {quoted(one.candidates[0].id)}"
            + (f" --shard {quoted(one.shard)}" if one.shard else "")
        )
