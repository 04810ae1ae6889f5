"""Encoded bytes, paths or arrays -> upright RGB images; no torch, so that text stages may look.

Transparency is laid on white, phones' pictures are turned, of an animation the first frame counts.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from openmofi.pairs.jpeg import plain_jpeg

Source = Image.Image | np.ndarray | bytes | str | Path

PICTURE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
"""What Pillow raises for damaged bytes (the usual three, AVIF's RuntimeError, and what single
decoders let through) and for a header that claims too many pixels."""

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a cut-off picture is an error with a reason, not grey


def read_picture(picture: Source, size: int | None = None) -> Image.Image:
    """Returns an RGB image from a path, encoded bytes, an RGB array or a PIL image.

    Args:
        picture: what to read; transparency is laid on white.
        size: the side wanted in the end; lets JPEG decode at a fraction of the full size.

    Raises:
        OSError: the bytes are not a readable image (or another of PICTURE_ERRORS).
    """
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture).convert("RGB")
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    return decode_picture(picture, size)[0]


def decode_picture(
    source: bytes | str | Path, size: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns (RGB image, its full width and height) from encoded bytes or a path.

    Args:
        source: what to decode.
        size: the side wanted in the end; lets JPEG decode at a fraction of the full size.

    Raises:
        OSError: as `read_picture`.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    plain = plain_jpeg(data)
    if plain is not None:
        image = plain.decode(data, scale=plain.scale_for(2 * size) if size else 1)
        return to_rgb(image), (plain.width, plain.height)
    return _open(data, size)


def _open(data: bytes, size: int | None) -> tuple[Image.Image, tuple[int, int]]:
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        if size and image.format == "JPEG":
            image.draft("RGB", (2 * size, 2 * size))
        image.load()  # what a PNG says of itself may stand behind its pixels
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
        if turn in (5, 6, 7, 8):
            width, height = height, width
        # Phones store pictures as the chip lay.
        return to_rgb(ImageOps.exif_transpose(image) if turn != 1 else image), (width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns an image in RGB, transparency laid on white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    if image.mode == "RGB" and type(image) is Image.Image:
        return image
    return image.convert("RGB")
