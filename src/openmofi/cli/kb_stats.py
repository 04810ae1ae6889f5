"""The verb `kb stats`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from openmofi.cli.app import Json, kb_app
from openmofi.cli.output import print_json, print_table, quoted, say_next


@kb_app.command(name="stats")
def kb_stats(
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show the contents of a knowledge base in numbers.

    Example: openmofi kb stats --kb kb

    Args:
        kb: Knowledge base directory.
        as_json: Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.kb.stats import kb_stats as run_stats

    knowledge = KnowledgeBase.open(kb)
    stats = run_stats(knowledge)
    if as_json:
        print_json(stats)
        return
    rows = [(name.replace("_", " "), _told(value)) for name, value in asdict(stats).items()]
    print_table(("", str(kb)), rows)
    say_next(f'openmofi link "A CAPTION" --kb {quoted(kb)}')


def _told(value: Any) -> str:
    """Formats counts for people: "label 100, alias 143"."""
    if isinstance(value, int):
        return f"{value:,}"
    pairs = value.items() if isinstance(value, dict) else ((row[:-1], row[-1]) for row in value)
    texts = (
        (name if isinstance(name, str) else " ".join(filter(None, name)), n) for name, n in pairs
    )
    return ", ".join(f"{text} {count:,}" for text, count in texts)
