"""Encoded bytes, paths or arrays -> upright RGB images, without torch.

Transparent images are put on white, rotated ones are turned upright, and of an animation the first
frame is taken.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from openmofi.images.formats import formats, has_heif
from openmofi.images.jpeg import bare_jpeg, plain_jpeg
from openmofi.images.levels import Samples, is_deep, samples_of, scale_hole, shallow
from openmofi.images.orientation import (
    bare_avif,
    exif_orientation,
    is_sideways,
    upright,
    xmp_orientation,
)
from openmofi.refused import Refused

ImageSource = Image.Image | np.ndarray | bytes | str | Path

_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    RuntimeError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for damaged bytes: the usual three, AVIF's RuntimeError, and what some
decoders let through."""
_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_NEEDS_HEIF = "HEIC needs another package: pip install 'openmofi[heif]'"

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated image is refused instead of filled with grey


def read_image(source: ImageSource, size: int | None = None) -> Image.Image:
    """Returns an RGB image from a path, encoded bytes, an array or a PIL image.

    Args:
        source: what to read; transparent images are put on white.
        size: the final side in pixels; lets JPEG decode at a fraction of the full size.

    Raises:
        OSError: the bytes are not a readable image. Decoders may raise any other Exception, too;
            `refuse` turns it into a reason.
    """
    if isinstance(source, np.ndarray):
        return to_rgb(Image.fromarray(source))
    if isinstance(source, Image.Image):
        return to_rgb(source)
    return decode_image(source, size)[0]


def decode_image(
    source: bytes | str | Path, size: int | None = None
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns (RGB image, its full width and height) from encoded bytes or a path.

    Args:
        source: what to decode.
        size: the final side in pixels; lets JPEG decode at a fraction of the full size.

    Raises:
        OSError: as `read_image`.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    plain = plain_jpeg(data)
    if plain is not None:
        image = plain.decode(data, scale=plain.scale_for(2 * size) if size else 1)
        return to_rgb(image), plain.size
    data, orientation = bare_jpeg(bare_avif(data))
    with _opened(data) as image:
        full = image.size
        samples = samples_of(image)
        is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        if is_tiff:
            image.load_end = lambda: None  # the original rewrites all tags to turn the image
        if image.format == "PNG":
            scale_hole(image)
        if size and image.format == "JPEG":
            image.draft("RGB", (2 * size, 2 * size))
        image.load()  # the metadata of a PNG may come after its pixels
        if image.format != "JPEG":
            full = image.im.size  # Pillow may have turned a TIFF's size already
            orientation = _stated_orientation(image, data if is_tiff else None)
        if is_sideways(orientation):
            full = full[1], full[0]
        return to_rgb(upright(image, orientation), samples), full


def decode_untouched(data: bytes) -> Image.Image:
    """Returns an RGB image as it is stored: not turned upright, with transparency left out.

    So webdataset and other loaders of training data read it.

    Raises:
        OSError: as `read_image`.
    """
    with _opened(data) as image:
        image.load()
        return image.convert("RGBA").convert("RGB")


def read_header(data: bytes) -> tuple[str, tuple[int, int]]:
    """Returns (format as Pillow names it, stored width and height) of encoded bytes.

    Raises:
        OSError: as `read_image`.
    """
    with _opened(bare_jpeg(bare_avif(data))[0]) as image:
        return image.format or "", image.size


def refuse(error: Exception) -> Refused:
    """Returns the reason for which an image could not be decoded.

    It is image_too_large, corrupt_image, needs_extra_heif or, for an unforeseen error, its type.
    """
    if isinstance(error, _TOO_LARGE):
        return Refused("image_too_large")
    if isinstance(error, NeedsHeifError):
        return Refused("needs_extra_heif")
    return Refused("corrupt_image" if isinstance(error, _DAMAGED) else type(error).__name__)


class NeedsHeifError(OSError):
    """Reports that HEIC can be read with another package."""


def _opened(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError:
        if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and not has_heif():
            raise NeedsHeifError(_NEEDS_HEIF) from None
        raise


def _stated_orientation(image: Image.Image, tiff: bytes | None) -> int:
    """Returns the orientation that a file other than a JPEG states."""
    info = image.info
    exif = info.get("exif") if tiff is None else tiff
    profile = info.get("Raw profile type exif")
    if exif is None and isinstance(profile, str):  # ImageMagick's, in PNG
        try:
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        except ValueError:
            exif = None
    packet = info.get("XML:com.adobe.xmp") or info.get("xmp") or b""
    packet = packet.encode(errors="replace") if isinstance(packet, str) else packet
    found = exif_orientation(exif) if isinstance(exif, bytes) else None
    return found or (xmp_orientation(packet) if isinstance(packet, bytes) else None) or 1


def to_rgb(image: Image.Image, samples: Samples | None = None) -> Image.Image:
    """Converts an image to RGB, a transparent one on white.

    Args:
        image: of any mode; deep grey is reduced to 8 bits as described in levels.py.
        samples: what its file says about its numbers.
    """
    if is_deep(image):
        return shallow(image, samples or samples_of(image)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image).convert("RGB")
    if image.mode == "RGB" and type(image) is Image.Image:
        return image
    return image.convert("RGB")
