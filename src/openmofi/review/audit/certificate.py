"""What an audit found, as certificate.json and certificate.html: enough for others to repeat it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openmofi
from openmofi.export.audits import floor_percent
from openmofi.files.folders import replace_file
from openmofi.review.audit.answers import AnswerFile
from openmofi.review.audit.bound import SHARES, STAKES
from openmofi.review.audit.draws import Draw
from openmofi.review.audit.result import StratumBound, bounds, curve
from openmofi.review.audit.strata import BY_SCORE, BY_SOURCE, CUTS, DRAWN, Strata

VERSION = 1
"""Raised when the same selection, seed and answers would give other draws or bounds."""
_SHOWN = ("overall", "frequency")
"""Kinds of strata whose bounds are drawn."""


@dataclass(frozen=True)
class Audited:
    """An audit as far as it has come."""

    selection: Path
    card: dict[str, Any]
    """card.json of the selection."""
    digest: str
    strata: Strata
    draws: Sequence[Draw]
    answers: AnswerFile
    confidence: float

    @property
    def cells(self) -> list[int]:
        """The cells of the draws."""
        return [draw.cell for draw in self.draws]

    def bounds(self) -> list[StratumBound]:
        """Returns what is known by now."""
        return bounds(self.strata, self.cells, self.answers.unbroken(), self.confidence)


def certificate(audited: Audited) -> dict[str, Any]:
    """Returns the content of certificate.json."""
    answers = audited.answers.unbroken()
    drawn = [
        {
            "draw": draw.number,
            **draw.names(),
            "name": draw.name,
            "score": draw.score,
            "cell": draw.cell,
            "answer": answer,
            "time": audited.answers.times[draw.number],
        }
        for draw, answer in zip(audited.draws, answers, strict=False)
    ]
    table = audited.strata.table
    return {
        "audit": VERSION,
        "openmofi": openmofi.__version__,
        "selection": {
            "name": audited.selection.name,
            "digest": audited.digest,
            "images": audited.card["funnel"]["kept_images"],
            "labels": int(table.labels.sum()),
            "entities": audited.card["funnel"]["entities"],
        },
        "by": audited.answers.head["by"],
        "seed": audited.answers.head["seed"],
        "confidence": audited.confidence,
        "begun": min((row["time"] for row in drawn), default=None),
        "ended": max((row["time"] for row in drawn), default=None),
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "checked": len(drawn),
        "planned": len(audited.draws),
        "changed_answers": audited.answers.changed,
        "bounds": [asdict(found) for found in audited.bounds()],
        "curves": {
            group.name: curve(audited.strata, group, audited.cells, answers, audited.confidence)
            for group in audited.strata.all()
            if group.kind in _SHOWN
        },
        "method": {
            "unsure": "counts as wrong",
            "cuts": CUTS,
            "drawn_by_frequency": DRAWN,
            "drawn_by_score": BY_SCORE,
            "drawn_by_source": BY_SOURCE,
            "shares": SHARES.tolist(),
            "stakes": STAKES.tolist(),
        },
        "strata": audited.strata.names,
        "cells": {"labels": table.labels.tolist(), "weight": table.weight.tolist()},
        "draws": drawn,
    }


def write_certificate(folder: Path, content: dict[str, Any]) -> Path:
    """Writes certificate.json and certificate.html; returns the path of the former."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader("openmofi", "")
    )
    page = environment.get_template("review/audit/certificate.html").render(
        audit=content, plot=_plot(content["curves"], content["checked"]), floor=floor_percent
    )
    with replace_file(folder / "certificate.html") as path:
        path.write_text(page, encoding="utf-8")
    with replace_file(folder / "certificate.json") as path:
        text = json.dumps(content, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder / "certificate.json"


_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 300, 44, 34


def _plot(curves: dict[str, list[tuple[int, float]]], checked: int) -> str:
    """Returns a drawing of the bounds over the checks."""

    def x(number: float) -> float:
        return round(_LEFT + number / max(checked, 1) * (_WIDTH - _LEFT - 10), 1)

    def y(share: float) -> float:
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - 10), 1)

    right, base, parts = _WIDTH - 10, _HEIGHT - 8, []
    for percent in range(0, 101, 20):
        at = y(percent / 100)
        parts.append(f'<line class="grid-line" x1="{_LEFT}" x2="{right}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4}" text-anchor="end">{percent}%</text>')
    for number, points in enumerate(curves.values()):
        corners, last = [], 0.0
        for draw, bound in points:
            corners += [(draw, last), (draw, bound)]
            last = bound
        line = " ".join(f"{x(draw)},{y(bound)}" for draw, bound in [*corners, (checked, last)])
        parts.append(f'<polyline class="line{number}" points="{line}"/>')
    parts.append(f'<text x="{_LEFT}" y="{base}">0</text>')
    parts.append(f'<text x="{right}" y="{base}" text-anchor="end">{checked:,} checks</text>')
    title = "Lower bounds of the precision after each check"
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
    )
