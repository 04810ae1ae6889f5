"""The labels to check as one HTML file that needs no server: keys y, n, u and b, and a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openmofi.files.folders import replace_file
from openmofi.images.thumbnails import thumbnail
from openmofi.pairs import ImageReader
from openmofi.progress import track
from openmofi.review.audit.certificate import Audited

_SIDE = 360


def write_check_page(path: Path, audited: Audited) -> None:
    """Writes the page; it begins with the answers that there are.

    Args:
        path: HTML file.
        audited: the audit.
    """
    from jinja2 import Environment, PackageLoader

    reader = ImageReader(audited.card["input"])
    rows: list[dict[str, Any]] = [
        {
            "draw": draw.number,
            **draw.names(),
            "name": draw.name,
            "description": draw.description,
            "caption": draw.caption,
            "url": draw.url if draw.url.startswith(("http://", "https://")) else "",
            "image": thumbnail(reader.read, draw.where, side=_SIDE),
        }
        for draw in track(audited.draws, "images", total=len(audited.draws), unit="images")
    ]
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=PackageLoader("openmofi", "")
    )
    page = environment.get_template("review/audit/check.html").render(
        name=audited.selection.name,
        data={
            "head": audited.answers.head,
            "draws": rows,
            "given": {str(n): answer for n, answer in audited.answers.given.items()},
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
