"""Images of any size -> thumbnails: WebPs for the server, data URLs for HTML pages."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from PIL import Image

from openmofi.errors import OpenMOFIError
from openmofi.images.decode import decode_image
from openmofi.images.look import look
from openmofi.refused import Refused

_WEBP_QUALITY, _JPEG_QUALITY = 80, 85


class Side(IntEnum):
    """Longest side of a thumbnail, in pixels."""

    SMALL = 128
    MEDIUM = 256
    LARGE = 512


def make_thumbnail(data: bytes, side: Side) -> tuple[bytes, tuple[int, int]] | Refused:
    """Returns (a WebP no larger than `side`, the image's own width and height), or the reason.

    Reasons are those of `openmofi.images.look`.
    """
    seen = look(data, None, keep_image=True)
    if isinstance(seen, Refused):
        return seen
    assert seen.image is not None
    seen.image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    seen.image.save(buffer, "WEBP", quality=_WEBP_QUALITY, method=2)
    return buffer.getvalue(), seen.size


def thumbnail(read: Callable[..., bytes], row: dict[str, Any], *, side: int = 96) -> str:
    """Returns a data URL no larger than `side` pixels, or "" if the image cannot be read.

    Args:
        read: reads the encoded bytes, such as `ImageReader.read`.
        row: its argument.
        side: longest side, in pixels.
    """
    try:
        small, _ = decode_image(read(row), side)
    except OpenMOFIError:
        raise
    except Exception:  # the page says why, see select/sections.py
        return ""
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
