"""Grey images with more than 8 bits per pixel -> the 256 levels that everything else works with.

The value of white is the one that the file states, or else follows from the values:

* integers of n bits: 2**n - 1, for signed ones 2**(n-1) - 1; so 16 bits are divided by 257. Images
  of 32 bits never use them all: the fewest of 8, 16 and 32 bits that hold the values are taken;
* fractions from 0 to 1: 1; from 0 to 255, with a value above 16: 255;
* anything else, such as negative numbers or light beyond white: the image's own range is stretched.

NaN and minus infinity are black, infinity is white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_SIGNED = 2
_PER_LEVEL = {"L;2": 85, "L;4": 17}
# A maximum between 1 and this is light beyond white rather than nearly black.
_LEAST_WHITE = 16


@dataclass(frozen=True)
class Samples:
    """What a file says about its numbers."""

    bits: int | None = None
    """None: not stated."""
    signed: bool = False
    inverted: bool = False
    """0 is white."""


def is_deep(image: Image.Image) -> bool:
    """Returns whether an image is grey with more than 8 bits per pixel."""
    return image.mode[:1] == "I" or image.mode == "F"


def samples_of(image: Image.Image) -> Samples:
    """Returns what an image's file says about its numbers, before or after loading."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits, kind = (_first(image, tag) for tag in (_BITS, _SAMPLE_FORMAT))
        return Samples(bits, kind == _SIGNED, _first(image, _PHOTOMETRIC) == 0)
    return Samples(16 if image.format == "PPM" else None)  # of any depth, scaled to 16 bits


def _first(image: TiffImagePlugin.TiffImageFile, tag: int) -> int | None:
    value = image.tag_v2.get(tag)
    return value[0] if isinstance(value, tuple) else value


def scale_hole(image: ImageFile.ImageFile) -> None:
    """Scales a PNG's transparent level or colour to 8 bits, as Pillow scales its pixels.

    Args:
        image: open, not yet loaded.
    """
    hole, stored = image.info.get("transparency"), image.tile[0].args if image.tile else None
    if stored == "RGB;16B" and isinstance(hole, tuple):
        image.info["transparency"] = tuple(level >> 8 for level in hole)
    elif stored in _PER_LEVEL and isinstance(hole, int):
        image.info["transparency"] = hole * _PER_LEVEL[stored]


def shallow(image: Image.Image, samples: Samples) -> Image.Image:
    """Returns a deep grey image in mode L; a transparent level becomes white."""
    values = np.asarray(image)
    if image.mode == "I" and samples.bits == 32 and not samples.signed:
        values = values.view(np.uint32)
    if image.mode == "F":
        levels = _of_fractions(values)
    else:
        bits = 16 if image.mode != "I" and samples.bits is None else samples.bits
        levels = _of_integers(values.astype(np.int64), bits, signed=samples.signed)
    levels = np.rint(levels).astype(np.uint8)
    if samples.inverted:
        levels = 255 - levels
    hole = image.info.get("transparency")
    if isinstance(hole, int):
        levels = np.where(values == hole, np.uint8(255), levels)
    return Image.fromarray(levels)


def _of_integers(values: np.ndarray, bits: int | None, *, signed: bool) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0:
        return _stretched(values.astype(np.float64), low, high)
    if bits in (None, 32):
        held = (8, 16, 31 if signed or bits is None else 32)
        white = next(2**n - 1 for n in held if high < 2**n)
    else:
        white = 2 ** (bits - signed) - 1
    return np.minimum(values, white) * (255.0 / white)


def _of_fractions(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    if not finite.any():
        return np.where(values > 0, 255.0, 0.0)
    low, high = (float(edge(values[finite])) for edge in (np.min, np.max))
    known = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1:
        levels = known * 255
    elif low >= 0 and _LEAST_WHITE < high <= 255:
        levels = known
    else:
        levels = _stretched(known, low, high)
    levels = np.where(finite, levels, 0.0)
    return np.where(values == np.inf, 255.0, levels)


def _stretched(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values - low) * (255.0 / (high - low)) if high > low else np.zeros(values.shape)
