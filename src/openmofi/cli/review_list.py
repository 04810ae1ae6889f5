"""The verb `review list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import brief, print_json, print_table


@review_app.command(name="list")
def review_list(
    i2e: Path,
    /,
    *,
    k: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 50,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List the answers that hold, the last ones first.

    Example: openmofi review list i2e --json > answers.json

    Args:
        i2e: Output of `openmofi label`.
        k: Most answers to print as a table.
        as_json: Print all of them as JSON.
    """
    import msgspec

    from openmofi.corrections.answers import answers_path, read_answers
    from openmofi.corrections.standing import standing_of

    read = read_answers(answers_path(i2e))
    standing = standing_of(read.rows)
    newest = standing.answers[::-1]
    if as_json:
        print_json(msgspec.to_builtins(newest))
        return
    rows = [
        (one.id[:12], one.time[:16], one.by, one.kind, one.key, brief(one.name, 30), one.entity)
        for one in newest[:k]
    ]
    print_table(("id", "time", "by", "says", "key", "name", "entity"), rows)
    print(f"{len(newest):,} answers hold, of {len(read.rows):,} rows")
    if standing.contradictions:
        print(f"note: {standing.contradictions:,} contradict somebody else's; the later one counts")
    if read.damaged:
        print(f"note: {read.damaged:,} damaged lines were passed over")
