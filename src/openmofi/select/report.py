"""`openmofi inspect`: a selection -> one HTML file that shows what was kept, refused, and why.

The page is self-contained: images and plots are embedded. It shows samples, so that it stays small
however many rows there are.
"""

from __future__ import annotations

from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.select import plots, sections
from openmofi.select.calibrate import Calibration
from openmofi.select.selection import Selection

_LISTED_ENTITIES = 400

MEANINGS = {
    "no_mention": "the caption names no entity of the knowledge base",
    "text_in_picture": "text covers more of the image than --max-text-area allows",
    "evaluation_duplicate": "the image is, or nearly is, one that --exclude names",
    "type_denied": "the entities are of a type that --deny-types names",
    "corrected": "people say that none of its labels is right",
    "picture_disagrees": "the image does not look like what the caption names",
    "duplicate_exact": "the same bytes as an image with a surer label",
    "duplicate_near": "nearly the same image as one with a surer label",
    "entity_too_rare": "fewer images of the entity than --min-images",
    "entity_has_enough": "more images of the entity than --max-images",
    "no_caption": "there is no caption",
    "corrupt_image": "the image cannot be decoded",
    "needs_extra_heif": "HEIC can only be read with the extra heif",
    "unsupported_image": "an image in a format that is not supported",
    "image_missing": "the image file is missing",
    "image_too_large": "more pixels than any genuine image has",
    "no_image": "a caption without an image",
}


def inspect(
    i2e: Path | str, *, name: str = "default", out: Path | str | None = None, images: int = 60
) -> Path:
    """Writes the page and returns its path.

    Args:
        i2e: output of `label`.
        name: name of the selection.
        out: HTML file; by default inspect.html in the selection's folder.
        images: images per section.

    Raises:
        InputError: there is no such selection.
        MismatchError: the pairs were labelled again after the selection.
    """
    from jinja2 import Environment

    selection = Selection(Path(i2e), name)
    album = sections.SelectionAlbum(selection, images)
    looked, found = selection.card["looked"], selection.card["calibration"]
    # The cards of older versions lack some fields of the calibration.
    is_complete = found and found.keys() == {field.name for field in fields(Calibration)}
    entities = selection.vocabulary.slice(0, _LISTED_ENTITIES).to_pylist()
    most = np.max([row["images"] for row in entities], initial=1)
    template = (files("openmofi.select") / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(
        name=name,
        card=selection.card,
        funnel=_funnel(selection.card["funnel"]),
        long_tail=plots.long_tail(selection.vocabulary["images"].to_numpy()),
        calibration=plots.calibration(selection.card) if looked else "",
        evidence=plots.evidence_name(selection.card),
        unsure=Calibration(**found).doubt if is_complete else "",
        entities=[{**row, "percent": 100 * row["images"] / most} for row in entities],
        entities_left_out=max(len(selection.vocabulary) - _LISTED_ENTITIES, 0),
        gallery=list(sections.gallery(album)),
        disagreements=list(sections.disagreements(album)),
        moved=list(sections.moved_names(album)),
        refusals=list(sections.refusals(album)),
        duplicates=list(sections.duplicates(album)),
        text_regions=sections.text_regions(album),
    )
    path = Path(out) if out else selection.folder / "inspect.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _funnel(funnel: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the bars of the funnel: how many each reason refused, and how many were left."""
    total = left = funnel["pairs"]
    rows = []
    for reason, count in funnel["refused"].items():
        left -= count
        rows.append({"name": reason, "count": count, "left": left})
    assert left == funnel["kept_images"]
    share = 100 / max(total, 1)
    return [
        row
        | {"meaning": MEANINGS.get(row["name"], ""), "percent": row["count"] * share}
        | {"left_percent": row["left"] * share}
        for row in rows
    ]
