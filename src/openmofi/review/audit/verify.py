"""Somebody else's certificate and the selection -> whether the audit repeats."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.errors import InputError, MismatchError
from openmofi.export.samples import Selected
from openmofi.review.audit.certificate import VERSION
from openmofi.review.audit.draws import Draw, draw
from openmofi.review.audit.result import bounds
from openmofi.review.audit.strata import Strata
from openmofi.select.digest import selection_digest

_EQUAL = 1e-6


@dataclass(frozen=True)
class Verified:
    """A certificate whose draws and bounds were found again."""

    certificate: Path
    by: str
    seed: int
    checked: int
    at_least: float
    """The precision of all labels."""


def verify(selection: Path | str, certificate: Path | str) -> Verified:
    """Draws again, computes the bounds from the answers again, and compares.

    Args:
        selection: output of `select`.
        certificate: certificate.json of an audit of it.

    Raises:
        InputError: the file is not a certificate.
        MismatchError: it is about other labels, or something in it does not come out again.
    """
    selected, path = Selected(Path(selection)), Path(certificate)
    content = _read(path)
    try:
        return _verified(selected, path, content)
    except (KeyError, IndexError, TypeError, ValueError):
        raise InputError(f"{path} is damaged; expected certificate.json of an audit.") from None


def _verified(selected: Selected, path: Path, content: dict[str, Any]) -> Verified:
    digest = selection_digest(selected.folder)
    if content["selection"]["digest"] != digest:
        raise MismatchError(
            f"{path} is about a selection with the digest {content['selection']['digest'][:12]}, "
            f"but that of {str(selected.folder)!r} is {digest[:12]}; give the same labels."
        )
    strata, draws = draw(
        selected.folder, digest, seed=content["seed"], checks=max(content["checked"], 1)
    )
    for what, same in _compared(content, strata, draws):
        if not same:
            raise MismatchError(
                f"{path} does not repeat: the {what} differ from those that its seed, "
                f"{content['seed']}, and its answers give."
            )
    overall = content["bounds"][0]["at_least"]
    return Verified(path, content["by"], content["seed"], content["checked"], overall)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["audit"]
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{path} is not a certificate; expected certificate.json of an audit."
        ) from None
    if version != VERSION:
        raise MismatchError(
            f"{path} is of version {version!r}, but this OpenMOFI verifies version {VERSION}; use "
            f"OpenMOFI {content.get('openmofi')}."
        )
    return content


def _compared(content: dict[str, Any], strata: Strata, draws: list[Draw]):
    """Yields (what was compared, whether it is the same)."""
    rows, cells = content["draws"], content["cells"]
    table = strata.table
    yield (
        "strata",
        (
            cells["labels"] == table.labels.tolist()
            and np.allclose(cells["weight"], table.weight, rtol=1e-9, atol=0)
            and [tuple(names) for names in content["strata"]] == list(strata.names)
        ),
    )
    yield (
        "draws",
        len(rows) == content["checked"]
        and [(row["draw"], row["shard"], row["key"], row["entity"], row["cell"]) for row in rows]
        == [(d.number, d.shard, d.key, d.entity, d.cell) for d in draws[: len(rows)]],
    )
    answers = [row["answer"] for row in rows]
    again = bounds(strata, [d.cell for d in draws], answers, content["confidence"])
    yield (
        "bounds",
        len(again) == len(content["bounds"])
        and all(
            _equal(asdict(mine), theirs)
            for mine, theirs in zip(again, content["bounds"], strict=True)
        ),
    )


def _equal(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Returns whether two rows of bounds are the same up to rounding."""
    if mine.keys() != theirs.keys():
        return False
    return all(
        abs(value - theirs[name]) <= _EQUAL
        if isinstance(value, float) and isinstance(theirs[name], (int, float))
        else value == theirs[name]
        for name, value in mine.items()
    )
