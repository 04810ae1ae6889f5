"""The verbs about names: kb build, kb query, kb show, link."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from openmofi.cli.app import Flags, Json, app, kb_app
from openmofi.cli.output import brief, print_json, print_table, say_next, say_wrote
from openmofi.config import KBSettings


@kb_app.command(name="build")
def kb_build(
    sources: list[Path],
    /,
    *,
    out: Path,
    settings: Annotated[KBSettings, Flags] = KBSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Build a knowledge base from Wikidata dumps and catalogues.

    Example: openmofi kb build latest-all.json.gz products.csv --out kb

    Parameters
    ----------
    sources
        Dumps (.json, .json.gz, .json.bz2, .json.zst) and catalogues (.csv), in any mixture.
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
    say_next(f"openmofi kb query NAME --kb {out}")


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
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"No entity of {kb} is called {name!r}.")
        return
    rows = [(c.id, c.label, f"{c.prior:.3f}", c.description) for c in found]
    print_table(("id", "label", "prior", "description"), rows)
    say_next(f"openmofi kb show {found[0].id} --kb {kb}")


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


@app.command
def link(
    text: str,
    /,
    *,
    kb: Path = Path("kb"),
    model: str | None = None,
    all_candidates: bool = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Link the mentions of one caption to entities.

    Example: openmofi link "a flag of Georgia over Tbilisi" --kb kb

    Parameters
    ----------
    text
        The caption.
    kb
        Knowledge base directory.
    model
        Dual encoder whose text tower compares the caption with the candidates' descriptions; the
        default compares their words.
    all_candidates
        Show every candidate of a mention, not only the best.
    as_json
        Print JSON.
    """
    from openmofi.kb import KnowledgeBase
    from openmofi.link import Linker, WordEncoder

    knowledge = KnowledgeBase.open(kb)
    encoder = WordEncoder(knowledge)
    if model is not None:
        from openmofi.model import load_model

        encoder = load_model(model)
    table = Linker(knowledge, encoder=encoder).link([text], all_candidates=all_candidates)
    found = table.to_pylist()
    if as_json:
        print_json(found)
        return
    if not found:
        print("No name of the knowledge base occurs in this caption.")
        return
    rows = []
    for row in found:
        entity = knowledge.show(row["id"])
        context = "" if row["context"] is None else f"{row['context']:.3f}"
        numbers = (f"{row['prior']:.3f}", context, f"{row['score']:.3f}")
        rows.append((row["surface"], row["id"], entity.label, *numbers, entity.description))
    heads = ("mention", "id", "label", "prior", "context", "score", "description")
    print_table(heads, rows)
