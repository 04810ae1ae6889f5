"""The verb `kb query`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, kb_app
from openmofi.cli.output import print_json, print_table, quoted, say_next


@kb_app.command(name="query")
def kb_query(
    name: str,
    /,
    *,
    kb: Path = Path("kb"),
    limit: int = 10,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List the entities that a name may stand for, most probable first.

    If no entity has the name, entities whose names begin with it or differ by one letter are shown
    instead, except with --json.

    Example: openmofi kb query Belgium --kb kb-sample

    Args:
        name: Any name or alias, in any case.
        kb: Knowledge base directory.
        limit: Maximum number of entities.
        as_json: Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    found = KnowledgeBase.open(kb).query(name, limit=limit)
    are_exact = bool(found) and found[0].match == "exact"
    if as_json:
        print_json(found if are_exact else [])
        return
    if not are_exact:
        print(f"No entity of {kb} is called {name!r}{'; similar names:' if found else '.'}")
    if not found:
        return
    rows = [(c.id, c.label, f"{c.prior:.3f}", c.description) for c in found]
    print_table(("id", "label", "prior", "description"), rows)
    say_next(f"openmofi kb show {found[0].id} --kb {quoted(kb)}")
