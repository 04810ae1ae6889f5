"""The verb `index compact`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, index_app
from openmofi.cli.output import print_json

if TYPE_CHECKING:
    pass
from openmofi.cli.index import facts


@index_app.command
def compact(index: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Rewrite an index without its deleted rows; the others are renumbered.

    Example: openmofi index compact index

    Args:
        index: Output of `openmofi index`.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index

    after = Index.open(index).compact()
    if as_json:
        print_json(facts(after))
        return
    print(f"wrote {index} ({len(after):,} vectors, {after.meta['kind']})")
