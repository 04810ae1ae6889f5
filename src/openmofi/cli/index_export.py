"""The verb `index export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from openmofi.cli.app import Json, index_app
from openmofi.cli.output import print_json

if TYPE_CHECKING:
    pass


@index_app.command
def export(
    index: Path,
    /,
    *,
    to: Literal["parquet", "lance", "qdrant"],
    out: str,
    name: str = "openmofi",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write the vectors, labels and captions of an index for other systems.

    Example: openmofi index export index --to lance --out images.lance

    Args:
        index: Output of `openmofi index`.
        to: parquet: one file. lance: a LanceDB directory. qdrant: a directory, or a server.
        out: The file, the directory, or http://SERVER:6333.
        name: Name of the table or collection.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index
    from openmofi.search.exports import export_index

    rows = export_index(Index.open(index), out, to=to, name=name)
    if as_json:
        print_json({"out": out, "vectors": rows})
        return
    print(f"wrote {out} ({rows:,} vectors)")
