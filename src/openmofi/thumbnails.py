"""Images inside HTML pages: rows with places -> data URLs of small JPEGs."""

from __future__ import annotations

import base64
import io
from typing import Any

from openmofi.errors import OpenMOFIError
from openmofi.pairs import ImageReader
from openmofi.pairs.decode import decode_picture


def thumbnail(reader: ImageReader, row: dict[str, Any], *, side: int = 96) -> str:
    """Returns a data URL no larger than `side` pixels, or "" if the image cannot be read."""
    try:
        small, _ = decode_picture(reader.read(row), side)
    except OpenMOFIError:
        raise
    except Exception:  # who shows the page says why, see select/sections.py
        return ""
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
