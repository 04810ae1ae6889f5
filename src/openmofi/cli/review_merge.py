"""The verb `review merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, review_app
from openmofi.cli.output import print_json, quoted, say_next


@review_app.command
def merge(
    i2e: Path,
    files: list[Path],
    /,
    *,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Take in answers that were given elsewhere: beside older labels, or on another machine.

    Example: openmofi review merge new-i2e old-i2e/corrections.jsonl

    Args:
        i2e: Output of `openmofi label`.
        files: Files of answers, or folders of labels that have one. Answers that are there already
            are not added again.
        as_json: Print how many were added as JSON.
    """
    from openmofi.review.give import merge_files

    added = merge_files(i2e, files)
    if as_json:
        print_json({"added": added})
        return
    print(f"added {added:,} answers")
    say_next(f"openmofi review preview {quoted(i2e)}")
