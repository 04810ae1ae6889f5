"""The audits of a selection -> what the cards of its exports say about them.

Only certificates that are about the labels as they are now count, see `openmofi.review.audit`.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from openmofi.errors import InputError
from openmofi.select.digest import AUDITS, selection_digest

_FILES = ("certificate.json", "certificate.html")
_TAKEN = ("by", "seed", "confidence", "checked", "begun", "ended", "openmofi", "bounds")


def read_audits(selection: Path) -> list[dict[str, Any]]:
    """Returns the summaries of a selection's audits, the largest first.

    Args:
        selection: output of `select`.

    Raises:
        InputError: a certificate is damaged.
    """
    paths = sorted((selection / AUDITS).glob("*/certificate.json"))
    if not paths:
        return []
    digest = selection_digest(selection)
    found = []
    for path in paths:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            is_ours = content["selection"]["digest"] == digest and content["checked"]
            summary = {name: content[name] for name in _TAKEN}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"{path} is damaged; repeat `openmofi audit`, which writes it from the answers, or "
                "delete its folder."
            ) from None
        if is_ours:
            found.append({"digest": digest, **summary, "folder": path.parent.name})
    return sorted(found, key=lambda audit: -audit["checked"])


def floor_percent(bound: float) -> str:
    """Returns a lower bound in percent, rounded down, so that it stays one."""
    return f"{math.floor(round(1000 * bound, 6)) / 10:.1f}%"


def audit_sentence(audit: dict[str, Any]) -> str:
    """Returns one sentence about an audit."""
    whole, *others = audit["bounds"]
    tails = [row["at_least"] for row in others if row["name"].startswith("long tail")]
    more = "".join(f", and at least {floor_percent(b)} of those of the long tail" for b in tails)
    return (
        f"{audit['by']} checked {audit['checked']:,} labels, drawn at random with seed "
        f"{audit['seed']}: at least {floor_percent(whole['at_least'])} of all labels are right"
        f"{more}, each with {100 * audit['confidence']:.4g}% confidence."
    )


def copy_audits(selection: Path, audits: list[dict[str, Any]], out: Path) -> None:
    """Copies the certificates to audits/ of an export."""
    for audit in audits:
        place = out / AUDITS / audit["folder"]
        place.mkdir(parents=True)
        for name in _FILES:
            shutil.copyfile(selection / AUDITS / audit["folder"] / name, place / name)
