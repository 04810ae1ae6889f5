"""The verb `kb show`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Json, kb_app
from openmofi.cli.output import brief, print_json, print_table


@kb_app.command(name="show")
def kb_show(
    entity: str,
    /,
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show everything that the knowledge base knows about an entity.

    Example: openmofi kb show Q31 --kb kb-sample

    Args:
        entity: Id, such as Q31.
        kb: Knowledge base directory.
        as_json: Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    view = KnowledgeBase.open(kb).show(entity)
    if as_json:
        print_json(view)
        return
    print_table(("", entity), [(k, brief(v)) for k, v in asdict(view).items()])
