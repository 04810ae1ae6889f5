"""Answers -> what they would change, before they do; then the change, and the way back.

A preview is a whole selection beside the one that is reviewed, made with its settings and all
answers of now: NAME.preview. Applying puts it in its place, so what was shown is what comes; the
former one stays as NAME.before.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import SelectSettings, override
from openmofi.corrections.answers import (
    FILE,
    LabelAnswer,
    add_answers,
    answers_path,
    new_answer,
    read_answers,
)
from openmofi.corrections.standing import standing_of
from openmofi.errors import InputError
from openmofi.files.folders import exchange_folders, replace_file
from openmofi.label.joint_weights import Weighing
from openmofi.review.changes import LabelChanges, compare
from openmofi.select import select
from openmofi.select.digest import AUDITS
from openmofi.select.selection import Selection
from openmofi.shards import commits_of

CHANGES = "changes.json"
"""In the folder of a preview."""
_SHOWN = 60
"""Changes of each kind that are stored for a gallery, spread over all."""
_ENTITIES = 20


@dataclass(frozen=True)
class Preview:
    """What the answers would change."""

    answers: int
    digest: str
    """Of the answers that hold, see `Standing.digest`."""
    added: int
    """Labels."""
    removed: int
    images: int
    """With a label more or less."""
    labels: int
    """In the selection before."""
    entities: list[dict[str, Any]]
    """id, label, added, removed of those that change most."""
    gallery: list[dict[str, Any]]
    """file, row, key, caption, id, label, change (added or removed) of some changes."""
    about: dict[str, Any]
    """What the selection says of its answers, see `card.json`."""


def preview(i2e: Path | str, *, name: str = "default") -> Preview:
    """Decides with all answers, beside the selection, and says what would change.

    Args:
        i2e: output of `label`.
        name: the selection that is reviewed.

    Raises:
        InputError: there is no such selection, or nobody has answered anything.
        MismatchError: the labels have changed since it was made.
    """
    i2e = Path(i2e)
    before = Selection(i2e, name)
    standing = standing_of(read_answers(answers_path(i2e)).rows)
    if not standing and "corrections" not in before.card:
        raise InputError(
            f"Nobody has corrected anything in {str(i2e)!r}; look at `openmofi review queue {i2e}`."
        )
    settings = override(SelectSettings(), before.card["settings"] | {"corrections": True})
    select(i2e, name=f"{name}.preview", settings=settings, fit=_fit(before))
    after = Selection(i2e, f"{name}.preview")
    found = _described(
        before, after, compare(before, after), len(standing.answers), standing.digest
    )
    with replace_file(after.folder / CHANGES) as file:
        file.write_text(json.dumps(vars(found), ensure_ascii=False) + "\n")
    return found


def read_preview(i2e: Path | str, *, name: str = "default") -> Preview | None:
    """Returns the preview of the answers of now; None if there is none, or it is of others."""
    file = Path(i2e) / "select" / f"{name}.preview" / CHANGES
    try:
        found = Preview(**json.loads(file.read_text()))
        made_after = Path(i2e, "select", name, "card.json").stat().st_mtime_ns
        is_newer = file.stat().st_mtime_ns >= made_after
    except (OSError, ValueError, TypeError):
        return None
    standing = standing_of(read_answers(answers_path(i2e)).rows)
    return found if is_newer and found.digest == standing.digest else None


def apply(i2e: Path | str, *, name: str = "default") -> Preview:
    """Puts the preview of the answers of now in the place of the selection.

    Without one it is made first. The former selection stays as NAME.before.
    """
    found = read_preview(i2e, name=name) or preview(i2e, name=name)
    folder = Path(i2e) / "select" / name
    new, former = (folder.with_name(f"{name}.{part}") for part in ("preview", "before"))
    if (folder / AUDITS).is_dir():
        shutil.copytree(folder / AUDITS, new / AUDITS, dirs_exist_ok=True)
    shutil.rmtree(former, ignore_errors=True)
    exchange_folders(new, folder)
    new.rename(former)
    return found


def revert(i2e: Path | str, *, name: str = "default", by: str = "") -> int:
    """Takes back the last `apply`: its answers are undone, the former selection returns.

    Returns:
        How many answers were undone.

    Raises:
        InputError: there is no former selection.
    """
    i2e = Path(i2e)
    folder = i2e / "select" / name
    former = folder.with_name(f"{name}.before")
    if not (former / "card.json").is_file():
        raise InputError(
            f"{str(i2e)!r} has no selection from before the last apply of {name!r}; undo single "
            "answers with `openmofi review undo`, and apply."
        )
    now, then = (read_answers(one / FILE).by_id for one in (folder, former))
    holding = {answer.id for answer in standing_of(read_answers(answers_path(i2e)).rows).answers}
    gone = [one for one in now if one not in then and one in holding]
    undo(i2e, gone, by=by)
    exchange_folders(former, folder)
    shutil.rmtree(former)
    return len(gone)


def undo(i2e: Path | str, ids: list[str], *, by: str = "") -> list[LabelAnswer]:
    """Takes answers back.

    Raises:
        InputError: there is no such answer.
    """
    path = answers_path(i2e)
    known = read_answers(path).by_id
    for one in ids:
        if one not in known:
            raise InputError(f"There is no answer {one!r}; see `openmofi review list {i2e}`.")
    rows = [new_answer("undo", undoes=one, by=by) for one in ids]
    add_answers(path, rows)
    return rows


def _fit(before: Selection) -> Weighing | None:
    """Returns the weights fitted to the labels of a selection, if these are still all there are."""
    labelled = [commit.file for commit in commits_of(before.i2e, "labels")]
    is_same = labelled == before.shards["file"].to_pylist()
    # Priors that images taught are learnt between two fits.
    is_plain = before.card["settings"].get("priors", "labels") == "labels"
    stored = before.card.get("fit")
    return Weighing.restored(stored) if stored and is_same and is_plain else None


def _described(
    before: Selection, after: Selection, changes: LabelChanges, answers: int, digest: str
) -> Preview:
    """Returns the changes with examples."""
    texts = {}
    for selection in (before, after):
        table = selection.vocabulary
        texts |= dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))
    counts: dict[str, Counter[int]] = {}
    gallery: list[dict[str, Any]] = []
    for change in ("added", "removed"):
        rows = getattr(changes, change)
        counts[change] = Counter(rows[:, 1].tolist())
        shown = (
            rows[np.unique(np.linspace(0, len(rows) - 1, _SHOWN).astype(int))]
            if len(rows)
            else rows
        )
        files, places = changes.places(shown[:, 0])
        for file, row, entity in zip(
            files.tolist(), places.tolist(), shown[:, 1].tolist(), strict=True
        ):
            pair = after.read(file, [row])[0]
            known = {"id": changes.ids[entity], "label": texts[changes.ids[entity]]}
            place = {"file": file, "row": row, "key": pair["key"], "caption": pair["caption"] or ""}
            gallery.append({"change": change, **place, **known})
    totals = counts["added"] + counts["removed"]
    entities = [
        {
            "id": changes.ids[entity],
            "label": texts[changes.ids[entity]],
            **{change: counts[change][entity] for change in counts},
        }
        for entity, _ in totals.most_common(_ENTITIES)
    ]
    images = len(np.unique(np.concatenate([changes.added[:, 0], changes.removed[:, 0]])))
    return Preview(
        answers,
        digest,
        len(changes.added),
        len(changes.removed),
        images,
        before.card["funnel"]["kept_labels"],
        entities,
        gallery,
        after.card.get("corrections", {}),
    )
