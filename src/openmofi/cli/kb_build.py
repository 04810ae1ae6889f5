"""The verb `kb build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openmofi.cli.app import Flags, Json, Out, kb_app
from openmofi.cli.output import print_json, quoted, say_next, say_wrote
from openmofi.config import KBSettings


@kb_app.command(name="build")
def kb_build(
    sources: Annotated[list[Path], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    out: Annotated[Path, Out],
    onto: Path | None = None,
    settings: Annotated[KBSettings, Flags] = KBSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Build a knowledge base from Wikidata dumps, WordNet and catalogues.

    Repeating the command continues a build that was killed.

    Example: openmofi kb build latest-all.json.gz products.csv --out kb

    Args:
        sources: Dumps (.json, .json.gz, .json.bz2, .json.zst, or - for standard input),
            catalogues (.csv, .tsv, .jsonl, .parquet) and the folder of WordNet 3's database
            (/usr/share/wordnet on Debian), in any combination. The fastest format of a dump is
            .json.gz.
        onto: Knowledge base that the sources are newer than: their entities replace those of the
            same id, or are added, and the rest is kept.
        out: Directory to write; an existing knowledge base is replaced at the end.
        settings: One option per field.
        as_json: Print the counts as JSON.
    """
    from openmofi.kb import build_kb

    summary = build_kb(sources, out=out, settings=settings, onto=onto)
    if as_json:
        print_json(summary)
        return
    say_wrote(out, summary.entities, summary.rejected, "entities")
    if onto is not None:
        new = summary.entities - summary.kept - summary.replaced
        print(
            f"note: {summary.kept:,} entities of {onto} are kept, {summary.replaced:,} are "
            f"replaced, {new:,} are new"
        )
    for source in summary.sources:
        if source.note:
            print(f"note: {source.path}: {source.note}")
    for kind, counts in summary.links.items():
        rest = f"{counts['unresolved']:,} lead to no entity"
        if still := counts["still_entities"]:
            rest += f", {still:,} are of ids that are still entities"
        print(f"note: {kind}: {counts['resolved']:,} of {counts['lines']:,} lines used, {rest}")
    say_next(f"openmofi kb query NAME --kb {quoted(out)}")
