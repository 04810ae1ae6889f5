"""The verbs about names: kb build, kb query, kb show, kb stats."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from openmofi.cli.app import Flags, Json, Out, kb_app
from openmofi.cli.output import brief, print_json, print_table, quoted, say_next, say_wrote
from openmofi.config import KBSettings


@kb_app.command(name="build")
def kb_build(
    sources: Annotated[list[Path], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[Path, Out],
    settings: Annotated[KBSettings, Flags] = KBSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Build a knowledge base from Wikidata dumps and catalogues.

    A build that was killed goes on where it stopped when the same command is given again.

    Example: openmofi kb build latest-all.json.gz products.csv --out kb

    Parameters
    ----------
    sources
        Dumps (.json, .json.gz, .json.bz2, .json.zst, or - for standard input) and catalogues
        (.csv, .tsv, .jsonl, .parquet), in any mixture. Of a dump .json.gz is read fastest.
    out
        Directory to write; an existing knowledge base is replaced at the end.
    as_json
        Print the counts as JSON.
    """
    from openmofi.kb import build_kb

    summary = build_kb(sources, out=out, settings=settings)
    if as_json:
        print_json(summary)
        return
    say_wrote(out, summary.entities, summary.rejected, "entities")
    for source in summary.sources:
        if source.note:
            print(f"note: {source.path}: {source.note}")
    for kind, counts in summary.links.items():
        rest = f"{counts['unresolved']:,} lead to no entity"
        if still := counts["still_entities"]:
            rest += f", {still:,} are of ids that are entities still"
        print(f"note: {kind}: {counts['resolved']:,} of {counts['lines']:,} lines used, {rest}")
    say_next(f"openmofi kb query NAME --kb {quoted(out)}")


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

    Where no entity has the name, those with a name that begins so or differs by one letter are
    shown instead, but not in JSON, which answers programs.

    Example: openmofi kb query Belgium --kb kb-sample

    Parameters
    ----------
    name
        Any name or alias, in any case.
    kb
        Knowledge base directory.
    limit
        Largest number of entities.
    as_json
        Print JSON.
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


@kb_app.command(name="show")
def kb_show(
    entity: str,
    /,
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show everything that is known of an entity.

    Example: openmofi kb show Q31 --kb kb-sample

    Parameters
    ----------
    entity
        Id, such as Q31.
    kb
        Knowledge base directory.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase

    view = KnowledgeBase.open(kb).show(entity)
    if as_json:
        print_json(view)
        return
    print_table(("", entity), [(k, brief(v)) for k, v in asdict(view).items()])


@kb_app.command(name="stats")
def kb_stats(
    *,
    kb: Path = Path("kb"),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say what a knowledge base holds.

    Example: openmofi kb stats --kb kb

    Parameters
    ----------
    kb
        Knowledge base directory.
    as_json
        Print JSON.
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
    """Returns counts as a person would tell them: "label 100, alias 143"."""
    if isinstance(value, int):
        return f"{value:,}"
    pairs = value.items() if isinstance(value, dict) else ((row[:-1], row[-1]) for row in value)
    texts = (
        (name if isinstance(name, str) else " ".join(filter(None, name)), n) for name, n in pairs
    )
    return ", ".join(f"{text} {count:,}" for text, count in texts)
