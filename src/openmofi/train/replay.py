"""A stored change of an image, made again: encoded image, crop and operations -> uint8 pixels.

Apple's reinforced datasets (arXiv 2311.17049) store of each version that the teachers saw what
torchvision drew for it: the box of RandomResizedCrop, in pixels of the image, and RandAugment's
operations with their magnitudes. torchvision computes all of them with Pillow, so the same calls
give the same bits here. Where an image moves, torchvision takes the nearest pixel, and black from
outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from openmofi.images.look import decode_stored
from openmofi.refused import Refused

STORED_SIDE = 224
"""Side of the images on which magnitudes in pixels were drawn."""


@dataclass(frozen=True)
class Version:
    """A change of an image."""

    box: tuple[int, int, int, int]
    """Top, left, height and width of the crop, in pixels of the image that was changed."""
    operations: tuple[tuple[int, float], ...]
    """Places in OPERATIONS, and magnitudes with their sign."""
    size: tuple[int, int] | None = None
    """Width and height of the image that was changed; None: those of the image at hand."""


def replay(
    data: bytes, version: Version, *, side: int
) -> UInt8[np.ndarray, "side side 3"] | Refused:
    """Returns a version of an image at a network's size, or a Refused.

    Refuses an image that the box does not fit into (other_size), and what cannot be decoded.

    Args:
        data: the encoded image.
        version: how it is changed.
        side: of the network's input; at STORED_SIDE, the pixels are those that the teachers saw.
    """
    return decode_stored(data, lambda image: _changed(image, version, side))


def _changed(image: Image.Image, version: Version, side: int) -> np.ndarray | Refused:
    box = _box_in(image.size, version)
    if box is None:
        return Refused("other_size")
    part = image.crop(box).resize((side, side), Image.Resampling.BICUBIC)
    for number, magnitude in version.operations:
        part = list(OPERATIONS.values())[number](part, magnitude)
    return np.asarray(part)


def _box_in(size: tuple[int, int], version: Version) -> tuple[int, int, int, int] | None:
    """Returns the box (left, upper, right, lower) in an image that may be a smaller copy."""
    top, left, height, width = version.box
    box = (left, top, left + width, top + height)
    if version.size is not None and version.size != size:
        across, down = size[0] / version.size[0], size[1] / version.size[1]
        left, upper = round(box[0] * across), round(box[1] * down)
        right, lower = round(box[2] * across), round(box[3] * down)
        box = (left, upper, max(right, left + 1), max(lower, upper + 1))
    fits = 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]
    return box if fits else None


# ---------------------------------------------------------------- the operations of RandAugment


def _shear_x(image: Image.Image, magnitude: float) -> Image.Image:
    return _moved(image, (1, _tangent(magnitude), 0, 0, 1, 0))


def _shear_y(image: Image.Image, magnitude: float) -> Image.Image:
    return _moved(image, (1, 0, 0, _tangent(magnitude), 1, 0))


def _translate_x(image: Image.Image, magnitude: float) -> Image.Image:
    return _moved(image, (1, 0, -_whole_pixels(image, magnitude), 0, 1, 0))


def _translate_y(image: Image.Image, magnitude: float) -> Image.Image:
    return _moved(image, (1, 0, 0, 0, 1, -_whole_pixels(image, magnitude)))


def _tangent(magnitude: float) -> float:
    """Returns the magnitude after torchvision's way through degrees, which may change a bit."""
    return math.tan(math.radians(math.degrees(math.atan(magnitude))))


def _whole_pixels(image: Image.Image, magnitude: float) -> int:
    """Returns a shift in pixels of 224 as whole pixels of the image, towards zero."""
    return int(magnitude * image.width / STORED_SIDE)


def _moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Takes each pixel from where the matrix sends its place."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _enhanced(
    kind: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, magnitude: kind(image).enhance(1.0 + magnitude)


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, _: image,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": lambda image, magnitude: image.rotate(magnitude, Image.Resampling.NEAREST),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "Posterize": lambda image, magnitude: ImageOps.posterize(image, int(magnitude)),
    "Solarize": lambda image, magnitude: ImageOps.solarize(image, magnitude),  # pyrefly: ignore
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
}
"""torchvision's operations, in its order, by whose places they are stored."""
