"""The verb `index calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openmofi.cli.app import Flags, Json, index_app
from openmofi.cli.output import print_json, quoted, say_next
from openmofi.config import PresenceSettings

if TYPE_CHECKING:
    pass


@index_app.command
def calibrate(
    index: Path,
    /,
    *,
    queries: Path | None = None,
    model: str | None = None,
    kb: Path | None = None,
    settings: Annotated[PresenceSettings, Flags] = PresenceSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Learn to say that nothing in an index looks like the query.

    Example: openmofi index calibrate index

    Each labelled entity is left out in turn and asked for by name and by image: what these queries
    score is what a query for something absent scores.

    Args:
        index: Output of `openmofi index`, with images of 20 labelled entities or more.
        queries: CSV of texts labelled by hand, in the place of the entities' names: columns `query`
            and `present` (yes or no), or `query` and `entity`.
        model: The encoder; the default is the one the index was made with.
        kb: Knowledge base in which entities are looked up; the default is the index's.
        settings: One option per field.
        as_json: Print JSON.
    """
    from openmofi.search import Searcher
    from openmofi.search.calibrate import calibrate as run_calibrate

    after = run_calibrate(Searcher(index, model=model, kb=kb), settings, queries=queries)
    learnt = after.calibration
    assert learnt is not None
    kinds = {
        kind: {"entities": null.num_entities, "queries": len(null.score)}
        for kind, null in learnt.nulls.items()
    }
    if as_json:
        print_json({"out": index, "rate": learnt.rate, "kinds": kinds})
        return
    told = [f"{k}: {n['queries']:,} of {n['entities']:,} absent things" for k, n in kinds.items()]
    print(
        f"wrote {index} (at most {learnt.rate:.1%} of absent things are found; {', '.join(told)})"
    )
    if "text" not in kinds:
        print("not calibrated for texts: no encoder reads them, or the entities have no names")
    say_next(f'openmofi search {quoted(index)} --text "…"')
