"""The verb `index add`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, index_app
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    pass
from openmofi.cli.index import facts


@index_app.command
def add(index: Path, source: Path, /, *, as_json: Annotated[bool, Json] = False) -> None:
    """Add embeddings to an index; it is not rebuilt.

    Example: openmofi index add index more.parquet

    An image at the same place as one in the index replaces it.

    Args:
        index: Output of `openmofi index`.
        source: As for `openmofi index`, from the same model.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index

    before = Index.open(index)
    after = before.add(source)
    if as_json:
        print_json(facts(after))
        return
    print(f"wrote {index} ({len(after):,} vectors, {len(before):,} before)")
    if after.calibration_is_old:
        say_next(f"openmofi index calibrate {quoted(index)}")
    elif after.meta["map"]:
        say_next(f"openmofi index map {quoted(index)}")
