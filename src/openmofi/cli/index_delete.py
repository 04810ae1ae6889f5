"""The verb `index delete`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Json, index_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.errors import InputError, SettingsError

if TYPE_CHECKING:
    pass
from openmofi.cli.index import facts

_SHOWN = 10


@index_app.command
def delete(
    index: Path,
    /,
    *,
    id: list[str] | None = None,
    row: list[int] | None = None,
    entity: list[str] | None = None,
    source: list[str] | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Delete images from an index; it is not rebuilt.

    Example: openmofi index delete index --id 000000499

    Args:
        index: Output of `openmofi index`.
        id: Ids of images, as `openmofi search` prints them. Repeatable. If several images share an
            id, it is rejected and their rows are listed.
        row: Rows of images, as `openmofi search --json` prints them. Repeatable.
        entity: Ids or names of entities: deletes all their images. Repeatable.
        source: Hosts or shards: deletes all their images. Repeatable.
        as_json: Print what was written as JSON.
    """
    import numpy as np

    from openmofi.search import Filter, Index, Searcher

    if not (id or row or entity or source):
        raise SettingsError("Say what to delete: --id, --row, --entity or --source.")
    opened = Index.open(index)
    named = tuple(map(Searcher(opened).entity, entity or ()))
    wanted = np.zeros(opened.num_rows, bool)
    for number in row or ():
        if not 0 <= number < opened.num_rows:
            raise InputError(f"{str(index)!r} has no row {number}.")
        wanted[number] = True
    for identifier in id or ():
        found = opened.rows_with_id(identifier)
        if len(found) > 1:
            hits = opened.hits(found[:_SHOWN])
            places = [f"row {h.row} ({opened.root_of(h.row)} {h.path or h.shard})" for h in hits]
            raise InputError(
                f"{len(found):,} images have the id {identifier!r}: {', '.join(places)}"
                f"{', …' if len(found) > _SHOWN else ''}; give --row instead of --id."
            )
        wanted[found] = True
    for given in (Filter(entities=named), Filter(sources=tuple(source or ()))):
        if given:
            wanted |= opened.passing(given)
    rows = np.flatnonzero(wanted & opened.live)
    if not len(rows):
        raise InputError(f"{str(index)!r} has no such image.")
    after = opened.delete(rows)
    if as_json:
        print_json(facts(after) | {"deleted": len(rows)})
        return
    print(f"wrote {index} ({len(after):,} vectors, {len(rows):,} deleted)")
    if len(after) < 0.7 * after.num_rows:
        say_next(f"openmofi index compact {quoted(index)}")
    elif after.calibration_is_old:
        say_next(f"openmofi index calibrate {quoted(index)}")
