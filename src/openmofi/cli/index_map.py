"""The verb `index map`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, index_app
from openmofi.cli.output import print_json, quoted, say_next

if TYPE_CHECKING:
    pass
from openmofi.cli.index import facts


@index_app.command(name="map")
def map_index(
    index: Path,
    /,
    *,
    seed: int = 0,
    threads: int = 2,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Lay out all images of an index on a map, similar ones close together (t-SNE).

    Example: openmofi index map index

    Args:
        index: Output of `openmofi index`.
        seed: Seed of the layout.
        threads: Number of threads.
        as_json: Print what was written as JSON.
    """
    from openmofi.search import Index
    from openmofi.search.layout import make_map

    after = make_map(Index.open(index), seed=seed, threads=threads)
    if as_json:
        print_json(facts(after) | {"map": str(index / after.meta["map"])})
        return
    print(f"wrote {index}/{after.meta['map']} ({len(after):,} points)")
    say_next(f"openmofi serve {quoted(index)}")
