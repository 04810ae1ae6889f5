"""Images inside HTML pages: rows with places -> data URLs of small JPEGs."""

from __future__ import annotations

import base64
import io
from typing import Any

from openmofi.pairs import ImageReader
from openmofi.pictures import fetch, look


def thumbnail(reader: ImageReader, row: dict[str, Any], *, side: int = 96) -> str:
    """Returns a data URL no larger than `side` pixels, or "" if the image cannot be read."""
    data = fetch(reader.read, row)
    seen = data if isinstance(data, str) else look(data, None, keep_image=True)
    if isinstance(seen, str) or seen.image is None:
        return ""
    seen.image.thumbnail((side, side))
    buffer = io.BytesIO()
    seen.image.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
