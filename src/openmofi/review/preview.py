"""Answers -> what they would change, before they do; then the change, and the way back.

A preview is a whole selection beside the one that is reviewed, made with its settings and all
answers of now: NAME.preview. Applying puts it in its place, so what was shown is what comes; the
former one stays as NAME.before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable
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
from openmofi.corrections.standing import holding_ids, standing_of
from openmofi.errors import InputError
from openmofi.files.folders import exchange_folders, replace_file
from openmofi.label.joint_weights import Weighing
from openmofi.review.changes import LabelChanges, compare
from openmofi.select import select
from openmofi.select.digest import AUDITS
from openmofi.select.select import alone_at
from openmofi.select.selection import Selection
from openmofi.shards import commits_of

CHANGES = "changes.json"
"""In the folder of a preview."""
_SHOWN = 60
"""Changes of each kind that are stored for a gallery, spread over all."""
_ENTITIES = 20
_FORMER = "replaced_by"
"""In a selection from before an apply: what the one in its place is known by."""


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

    Raises:
        InputError: the selection was made with these answers, or others came meanwhile.
    """
    _check_news(i2e, name)
    found = read_preview(i2e, name=name) or preview(i2e, name=name)
    with alone_at(Path(i2e) / "select" / name):
        _check_news(i2e, name)
        if read_preview(i2e, name=name) != found:
            raise InputError(
                f"Somebody answered or applied meanwhile; look at `openmofi review preview {i2e}` "
                "again."
            )
        _apply(i2e, name)
    return found


def _check_news(i2e: Path | str, name: str) -> None:
    """Checks that the selection was not made with the answers of now."""
    now = standing_of(read_answers(answers_path(i2e)).rows).digest
    if Selection(Path(i2e), name).card.get("corrections", {}).get("digest") == now:
        raise InputError(
            f"The selection {name!r} was made with all these answers; nothing changes."
        )


def _apply(i2e: Path | str, name: str) -> None:
    folder = Path(i2e) / "select" / name
    new, former = (folder.with_name(f"{name}.{part}") for part in ("preview", "before"))
    if (folder / AUDITS).is_dir():
        shutil.copytree(folder / AUDITS, new / AUDITS, dirs_exist_ok=True)
    shutil.rmtree(former, ignore_errors=True)
    (new / _FORMER).unlink(missing_ok=True)
    (folder / _FORMER).write_text(_card_digest(new))
    exchange_folders(new, folder)
    new.rename(former)


def _card_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "card.json").read_bytes()).hexdigest()


def revert(i2e: Path | str, *, name: str = "default", by: str = "") -> int:
    """Takes back the last `apply`: its answers are undone, the former selection returns.

    Returns:
        How many answers were undone.

    Raises:
        InputError: there is no former selection, or another one was made since.
    """
    i2e = Path(i2e)
    with alone_at(i2e / "select" / name):
        return _revert(i2e, name, by)


def _revert(i2e: Path, name: str, by: str) -> int:
    folder = i2e / "select" / name
    former = folder.with_name(f"{name}.before")
    if not (former / "card.json").is_file():
        raise InputError(
            f"{str(i2e)!r} has no selection from before the last apply of {name!r}; undo single "
            "answers with `openmofi review undo`, and apply."
        )
    mark = former / _FORMER
    if not mark.is_file() or mark.read_text() != _card_digest(folder):
        raise InputError(
            f"The selection {name!r} was made again since the last apply and would be lost; "
            "undo single answers with `openmofi review undo`, and apply."
        )
    now, then = (read_answers(one / FILE).by_id for one in (folder, former))
    rows = read_answers(answers_path(i2e)).rows
    holding = holding_ids(rows)
    gone = [one for one in now if one not in then and one in holding]
    back = {one for one in then if one not in now and one not in holding}
    gone += [row.id for row in rows if row.undoes in back and row.id in holding]
    undo(i2e, gone, by=by)
    if (folder / AUDITS).is_dir():
        shutil.copytree(folder / AUDITS, former / AUDITS, dirs_exist_ok=True)
    mark.unlink()
    exchange_folders(former, folder)
    shutil.rmtree(former)
    return len(gone)


def undo(i2e: Path | str, ids: list[str], *, by: str = "") -> list[LabelAnswer]:
    """Takes answers back.

    Raises:
        InputError: there is no such answer, several begin so, or it was taken back before.
    """
    path = answers_path(i2e)
    read = read_answers(path)
    holding = holding_ids(read.rows)
    ids = [_whole_id(one, read.by_id, i2e) for one in ids]
    for one in ids:
        if one not in holding:
            raise InputError(f"The answer {one!r} was taken back before.")
    rows = [new_answer("undo", undoes=one, by=by) for one in ids]
    add_answers(path, rows)
    return rows


def _whole_id(given: str, known: Iterable[str], i2e: Path | str) -> str:
    """Returns the id that is given by its beginning, at least 8 characters, or whole."""
    found = [one for one in known if one == given or (len(given) >= 8 and one.startswith(given))]
    if len(found) != 1:
        what = "There is no answer" if not found else f"{len(found)} answers begin with"
        raise InputError(f"{what} {given!r}; see `openmofi review list {i2e}`.")
    return found[0]


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
