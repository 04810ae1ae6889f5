"""The page of a comparison: how many changes each cause has, and examples with their images.

It is laid out like the page of `inspect`, and as self-contained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.diff.causes import MEANINGS, Cause
from openmofi.diff.examples import ChangeExamples
from openmofi.diff.summary import DiffSummary
from openmofi.diff.version import LabelVersion
from openmofi.images.thumbnails import thumbnail
from openmofi.pairs import ImageReader

_SIDE = 144
_SHOWN_CANDIDATES = 6
_LONGEST_CAPTION = 300


def write_page(
    path: Path,
    summary: DiffSummary,
    examples: ChangeExamples,
    before: LabelVersion,
    after: LabelVersion,
) -> None:
    """Writes the page."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader("openmofi", "")
    )
    albums = _Album(before), _Album(after)
    most = max((counts["changes"] for counts in summary.causes.values()), default=1)
    causes = [
        {
            "name": cause.title,
            "meaning": MEANINGS[cause],
            **summary.causes[cause.title],
            "percent": 100 * summary.causes[cause.title]["changes"] / most,
            "cards": [_card(change, *albums) for change in examples.of(cause.title)],
        }
        for cause in Cause
        if cause.title in summary.causes
    ]
    page = environment.get_template("diff/diff.html").render(summary=summary, causes=causes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


class _Album:
    """Reads a version's labels and images."""

    def __init__(self, version: LabelVersion):
        self.version = version
        self._reader = ImageReader(version.run["input"])

    def row(self, file: str | None, row: int | None) -> dict[str, Any] | None:
        """Returns a row of the labels; None: the pair is not there."""
        if file is None:
            return None
        assert row is not None
        with pq.ParquetFile(self.version.i2e / file) as table:
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
            ends = np.cumsum(sizes)
            group = int(np.searchsorted(ends, row, "right"))
            found = table.read_row_group(group).take(pa.array([row - (ends[group] - sizes[group])]))
        return found.to_pylist()[0]

    def image(self, row: dict[str, Any]) -> dict[str, str]:
        """Returns the image's data URL, or why there is none."""
        if row["offset"] < 0 and not row["path"]:
            return {"url": "", "why": row["error"] or "no_image"}
        url = thumbnail(self._reader.read, row, side=_SIDE)
        return {"url": url, "why": "" if url else row["error"] or "image_missing"}

    def named(self, identifier: str | None) -> dict[str, str] | None:
        """Returns an entity's label and description."""
        if identifier is None:
            return None
        kb = self.version.kb
        row = kb.row_of(identifier)
        assert row is not None
        texts = kb.texts.label[row].as_py(), kb.texts.description[row].as_py()
        return {"id": identifier, "label": texts[0], "description": texts[1]}

    def candidates(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the most probable candidates of all mentions, with their names."""
        order = sorted(row["entities"] or [], key=lambda c: (c["start"], -(c["score"] or 0)))
        return [{**c, **(self.named(c["id"]) or {})} for c in order[:_SHOWN_CANDIDATES]]


def _card(change: dict[str, Any], before: _Album, after: _Album) -> dict[str, Any]:
    """Returns what the page shows of a change."""
    rows, shown = [], dict(change)
    for name, album in (("before", before), ("after", after)):
        row = album.row(change[f"file_{name}"], change[f"row_{name}"])
        if row is not None:
            rows.append((album, row))
        shown[name] = {
            "entity": album.named(change[f"id_{name}"]),
            "score": change[f"score_{name}"],
            "candidates": album.candidates(row) if row else [],
        }
    album, row = rows[-1]
    captions = dict.fromkeys((row["caption"] or "")[:_LONGEST_CAPTION] for _, row in rows)
    return {**shown, "captions": list(captions), "image": album.image(row)}
