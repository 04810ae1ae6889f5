"""Pictures inside HTML pages: rows with places -> data URLs of small JPEGs."""

from __future__ import annotations

import base64
import io
from typing import Any

from openmofi.pairs import PICTURE_ERRORS, ImageReader


def thumbnail(reader: ImageReader, row: dict[str, Any], *, side: int = 96) -> str:
    """Returns a data URL no larger than `side` pixels, or "" if the picture cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(reader.read(row))) as image:
            image.draft("RGB", (side, side))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((side, side))
    except PICTURE_ERRORS:
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
