"""The verb `review missing`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from openmofi.cli.app import Flags, Json, Out, review_app
from openmofi.cli.output import brief, print_json, print_table, quoted, say_next
from openmofi.config import MissingSettings
from openmofi.errors import SettingsError

if TYPE_CHECKING:
    from openmofi.review.missing.proposals import Proposal

_Ids = Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)]


@review_app.command
def missing(
    i2e: Path,
    /,
    *,
    name: str = "default",
    model: str | None = None,
    embeddings: Path | None = None,
    out: Annotated[Path | None, Out] = None,
    accept: _Ids = None,
    reject: _Ids = None,
    undo: _Ids = None,
    called: str | None = None,
    aliases: str | None = None,
    description: str = "",
    by: str = "",
    export: Annotated[Path | None, Out] = None,
    settings: Annotated[MissingSettings, Flags] = MissingSettings(),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Propose entities that the catalogue lacks, from refused images of one name and one look.

    With --model or --embeddings, proposals are made; the same command goes on after an
    interruption. With --accept, --reject or --undo they are decided on, and --export writes the
    accepted ones as a catalogue. With none of these, the proposals are listed.

    Example: openmofi review missing i2e --model openai/clip-vit-base-patch32

    Args:
        i2e: Output of `openmofi label`.
        name: The selection whose refused images are looked at.
        model: Hub id or directory of an encoder of images.
        embeddings: Vectors of the images instead, as `openmofi embed MODEL INPUT` writes them.
        out: Folder of the proposals and decisions; by default I2E/missing/NAME, where
            `openmofi serve` finds them.
        accept: Ids of proposals that become rows of the catalogue.
        reject: Ids of proposals that do not.
        undo: Ids of proposals or decisions whose decision is taken back.
        called: A better name, with one --accept.
        aliases: Better aliases, separated by |, with one --accept.
        description: What it looks like, with one --accept.
        by: Who decides.
        export: CSV file to write, for `openmofi kb build FILE --onto KB`.
        settings: One option per field.
        as_json: Print the proposals, decisions or counts as JSON.
    """
    from openmofi.review.missing import find_missing, missing_folder

    folder = missing_folder(i2e, name) if out is None else out
    decides = bool(accept or reject or undo or export)
    if decides and (model or embeddings):
        raise SettingsError("Make proposals first; then decide, without --model or --embeddings.")
    if (called or aliases or description) and len(accept or ()) != 1:
        raise SettingsError("--called, --aliases and --description go with one --accept.")
    this = f"openmofi review missing {quoted(i2e)}"
    this += f" --name {quoted(name)}" * (name != "default")
    this += f" --out {quoted(folder)}" * (out is not None)
    if decides:
        changed = aliases and aliases.split("|")
        better = {"name": called, "aliases": changed, "description": description}
        _decide(folder, this, accept or [], reject or [], undo or [], export, by, better, as_json)
        return
    if model is None and embeddings is None:
        _list(folder, this, as_json)
        return
    summary = find_missing(
        i2e, name=name, model=model, embeddings=embeddings, out=out, settings=settings
    )
    if as_json:
        print_json(summary)
        return
    _show(folder)
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in summary.dropped.items())
    print(
        f"wrote {summary.out} ({summary.proposals:,} proposals; {summary.looked:,} of "
        f"{summary.refused:,} refused images looked at{dropped and f', not {dropped}'})"
    )
    if summary.proposals:
        say_next(f"{this} --accept ID")


def _decide(
    folder: Path,
    this: str,
    accept: list[str],
    reject: list[str],
    undo: list[str],
    export: Path | None,
    by: str,
    better: dict,
    as_json: bool,
) -> None:
    import msgspec

    from openmofi.review.missing import decisions

    made = decisions.undo(folder, undo, by=by) if undo else []
    made += [decisions.decide(folder, "accept", one, by=by, **better) for one in accept]
    made += [decisions.decide(folder, "reject", one, by=by) for one in reject]
    count = decisions.export_catalogue(folder, export) if export else 0
    if as_json:
        print_json({"decisions": msgspec.to_builtins(made), "exported": count})
        return
    for one in made:
        print(f"noted {one.kind} {one.proposal or one.undoes}")
    if export:
        print(f"wrote {export} ({count:,} entities)")
        say_next(f"openmofi kb build {quoted(export)} --onto kb --out kb2")
    else:
        say_next(f"{this} --export new.csv")


def _list(folder: Path, this: str, as_json: bool) -> None:
    import msgspec

    from openmofi.review.missing.decisions import holding_decisions
    from openmofi.review.missing.proposals import read_proposals

    if as_json:
        holds = holding_decisions(folder)
        rows = [
            msgspec.to_builtins(one) | {"decision": holds[one.id].kind if one.id in holds else None}
            for one in read_proposals(folder)
        ]
        print_json(rows)
        return
    _show(folder)
    say_next(f"{this} --accept ID")


def _show(folder: Path, most: int = 50) -> None:
    from openmofi.review.missing.decisions import holding_decisions
    from openmofi.review.missing.proposals import read_proposals

    holds, proposals = holding_decisions(folder), read_proposals(folder)
    rows = [_row(one, holds[one.id].kind if one.id in holds else "") for one in proposals[:most]]
    heads = ("id", "name", "aliases", "images", "with it", "pure", "like", "decided")
    print_table(heads, rows)
    if len(proposals) > most:
        print(f"… and {len(proposals) - most:,} more")


def _row(one: Proposal, decided: str) -> tuple[str, ...]:
    near = one.nearest[0] if one.nearest else None
    return (
        one.id,
        brief(one.name, 40),
        brief(", ".join(one.aliases), 40),
        f"{one.images:,}",
        f"{one.share:.0%}",
        f"{one.purity:.0%}",
        f"{brief(near.label, 20)} {near.cosine:.2f}" if near else "",
        decided,
    )
