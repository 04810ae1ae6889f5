"""What people say of proposals: one line of JSON per decision, only ever added to.

In: proposals. Out: OUT/decisions.jsonl, and the accepted ones as a catalogue. A decision holds all
that its row needs, so it outlives new proposals; another row takes it back.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from openmofi.corrections.answers import append_rows, read_rows
from openmofi.errors import InputError
from openmofi.files.folders import replace_file
from openmofi.kb.text import canonical
from openmofi.review.missing.proposals import Proposal, read_proposals

FILE = "decisions.jsonl"
_MOST_TEXT = 2_000
COLUMNS = ("id", "name", "aliases", "description", "weight")


class RowDecision(msgspec.Struct, frozen=True, forbid_unknown_fields=False, omit_defaults=True):
    """One row."""

    id: str
    time: str
    """ISO 8601, UTC."""
    kind: Literal["accept", "reject", "undo"]
    by: str = ""
    """Who decided, as they call themselves."""
    proposal: str = ""
    """Its id, which becomes the entity's."""
    name: str = ""
    aliases: list[str] = []
    description: str = ""
    weight: float = 1.0
    undoes: str = ""
    """undo: the id of the decision that is taken back."""
    evidence: dict[str, Any] = {}
    """What was shown: the proposed name, images, purity."""


def decide(
    out: Path,
    kind: Literal["accept", "reject"],
    proposal: str,
    *,
    name: str | None = None,
    aliases: Sequence[str] | None = None,
    description: str = "",
    by: str = "",
) -> RowDecision:
    """Stores a decision; it is on disk when this returns.

    Args:
        out: the folder of the proposals.
        kind: whether it becomes a row of the catalogue.
        proposal: its id.
        name: a better name.
        aliases: better aliases.
        description: what the images are compared with, after the name.
        by: who decides.

    Raises:
        InputError: there is no such proposal, or a text is empty, too long, or has a line break.
    """
    known = {one.id: one for one in read_proposals(out)}
    if proposal not in known:
        raise InputError(
            f"{str(out)!r} has no proposal {proposal!r}; see `openmofi review missing`."
        )
    shown = known[proposal]
    called = " ".join((shown.name if name is None else name).split())
    if not canonical(called):
        raise InputError(f"A name needs a letter or a digit; got {called!r}.")
    others = [" ".join(one.split()) for one in (shown.aliases if aliases is None else aliases)]
    others = [one for one in dict.fromkeys(others) if canonical(one) and one != called]
    for one in others:
        if "|" in one:
            raise InputError(f"An alias cannot contain '|', which separates aliases: {one!r}.")
    described = " ".join(description.split())
    for one in (called, described, *others):
        if len(one) > _MOST_TEXT:
            raise InputError(f"A name or description may have {_MOST_TEXT:,} characters at most.")
    made = RowDecision(
        id=uuid.uuid4().hex,
        time=_now(),
        kind=kind,
        by=by,
        proposal=proposal,
        name=called,
        aliases=others,
        description=described,
        weight=float(max(shown.images, 1)),
        evidence=_shown(shown),
    )
    append_rows(out / FILE, [made])
    return made


def undo(out: Path, ids: Sequence[str], *, by: str = "") -> list[RowDecision]:
    """Takes decisions back, given their ids or those of proposals.

    Raises:
        InputError: no such decision holds.
    """
    holding = holding_decisions(out)
    by_id = {one.id: one for one in holding.values()} | holding
    lost = [one for one in ids if one not in by_id]
    if lost:
        raise InputError(f"No decision {lost[0]!r} holds in {str(out)!r}.")
    chosen = {by_id[one].id for one in ids}
    rows = [
        RowDecision(id=uuid.uuid4().hex, time=_now(), kind="undo", by=by, undoes=one)
        for one in chosen
    ]
    append_rows(out / FILE, rows)
    return rows


def holding_decisions(out: Path) -> dict[str, RowDecision]:
    """Returns the last decision about each proposal that nobody took back.

    Raises:
        InputError: the file holds something else.
    """
    return holding(read_rows(out / FILE, RowDecision)[0].values())


def holding(rows: Iterable[RowDecision]) -> dict[str, RowDecision]:
    """Returns what decisions say together, by proposal, in the order of their times."""
    rows = sorted(rows, key=lambda row: (row.time, row.id))
    undone: set[str] = set()
    for row in reversed(rows):  # an undo may be undone itself, always by a later row
        if row.kind == "undo" and row.id not in undone:
            undone.add(row.undoes)
    found: dict[str, RowDecision] = {}
    for row in rows:
        if row.kind != "undo" and row.id not in undone:
            found.pop(row.proposal, None)
            found[row.proposal] = row
    return found


def catalogue(out: Path) -> str:
    """Returns the accepted proposals as CSV, as `openmofi kb build` reads it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in holding_decisions(out).values():
        if row.kind == "accept":
            aliases = "|".join(row.aliases)
            writer.writerow((row.proposal, row.name, aliases, row.description, f"{row.weight:g}"))
    return text.getvalue()


def export_catalogue(out: Path, file: Path) -> int:
    """Writes the accepted proposals; returns how many.

    Raises:
        InputError: nobody accepted any.
    """
    count = sum(row.kind == "accept" for row in holding_decisions(out).values())
    if not count:
        raise InputError(f"Nobody has accepted a proposal in {str(out)!r}; use --accept ID.")
    with replace_file(file) as partial:
        partial.write_text(catalogue(out), encoding="utf-8")
    return count


def _shown(one: Proposal) -> dict[str, Any]:
    return {"name": one.name, "images": one.images, "purity": one.purity}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
