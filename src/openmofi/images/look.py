"""One image of an input -> what a job wants of it, or the reason why not.

`look` gives size, hashes and, for an encoder, pixels; `decode` pixels alone. No torch here: a job
without an encoder starts at once.

Reasons: image_missing (its file or shard is gone or shorter than it was), image_too_large (more
pixels than Pillow takes for honest, 89 million), image_too_narrow, corrupt_image; of an error that
nobody foresaw, the name of its type. One image never costs more than its own row.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from openmofi.errors import OpenMOFIError
from openmofi.images.decode import decode_image, refuse
from openmofi.images.jpeg import plain_jpeg
from openmofi.images.phash import HASH_SIDE, perceptual_hash
from openmofi.refused import Refused

# Beyond it, an image whose shorter side is brought to 224 pixels would fill the memory.
_MAX_ASPECT = 200
# What rapidocr brings the longer side to before it looks for text.
_TEXT_SIDE = 736

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""


class Fitting(Protocol):
    """Brings a decoded image to an encoder's size, as `openmofi.model.transform` does."""

    @property
    def draft_size(self) -> int | None:
        """Side that JPEG may be decoded for; None where every pixel counts."""
        ...

    def fit(self, image: Image.Image) -> np.ndarray:
        """Returns uint8 [size, size, 3]."""
        ...


@dataclass(frozen=True)
class SeenImage:
    """What was seen of an image."""

    size: tuple[int, int]
    """Width and height, upright."""
    sha256: bytes
    """Of the encoded bytes."""
    phash: int | None
    """Perceptual hash, see images/phash.py; None: too flat to have one. It may differ by 2 bits
    with and without pixels, for small images are decoded in grey where nobody wants colours."""
    pixels: np.ndarray | None = None
    """uint8 [size, size, 3] at an encoder's size; None without a transform."""
    image: Image.Image | None = None
    """RGB, for who looks for text; None unless asked for."""


def look(
    data: bytes, transform: Fitting | None, *, keep_image: bool = False
) -> SeenImage | Refused:
    """Returns what is seen of an image, or why it is refused.

    Args:
        data: the encoded bytes.
        transform: brings the image to the encoder's size; None: there is no encoder.
        keep_image: keep the decoded image, with at least 736 pixels a side where it has them.
    """
    if transform is None and not keep_image:
        return _refusing(_look_in_grey, data)
    return _refusing(_look_in_colour, data, transform, keep_image)


def decode(
    read: Callable[..., bytes], row: dict[str, Any], transform: Fitting
) -> tuple[np.ndarray, tuple[int, int]] | Refused:
    """Returns (pixels uint8 [size, size, 3], the image's own (width, height)), or why not.

    Args:
        read: reads the encoded bytes, such as `ImageReader.read`.
        row: what it is told.
        transform: brings the image to the encoder's size.
    """
    data = fetch(read, row)
    return data if isinstance(data, Refused) else _refusing(_pixels, data, transform)


def fetch(read: Callable[..., bytes], *place: Any) -> bytes | Refused:
    """Returns an image's encoded bytes, or why there are none.

    Args:
        read: reads them, such as `ImageReader.read`.
        place: what it is told.

    Raises:
        OpenMOFIError: nothing can be read there at all, such as without a package.
    """
    try:
        return read(*place)
    except OpenMOFIError:
        raise
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        return Refused("image_missing")
    except Exception as error:
        return Refused(type(error).__name__)


def decode_bytes(
    data: bytes, transform: Fitting, *, crop: Box | None = None
) -> np.ndarray | Refused:
    """Returns pixels uint8 [size, size, 3], or why there are none.

    Args:
        data: the encoded bytes.
        transform: brings the image to the encoder's size.
        crop: part of the image that counts; None: all of it.
    """
    if crop is not None:
        return _refusing(_cropped_pixels, data, transform, crop)
    decoded = _refusing(_pixels, data, transform)
    return decoded if isinstance(decoded, Refused) else decoded[0]


def _refusing(step: Any, data: bytes, *rest: Any) -> Any:
    """Returns what a step makes of the bytes, or why it cannot."""
    try:
        if plain_jpeg(data) is not None:
            return step(data, *rest)
        # The filters are the whole process's and cost more than a small image's header.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return step(data, *rest)
    except Exception as error:
        return refuse(error)


def _pixels(data: bytes, transform: Fitting) -> tuple[np.ndarray, tuple[int, int]] | Refused:
    image, size = decode_image(data, transform.draft_size)
    return Refused("image_too_narrow") if _is_needle(size) else (transform.fit(image), size)


def _cropped_pixels(data: bytes, transform: Fitting, crop: Box) -> np.ndarray | Refused:
    part = decode_image(data)[0].crop(crop)
    return Refused("image_too_narrow") if _is_needle(part.size) else transform.fit(part)


def _is_needle(size: tuple[int, int]) -> bool:
    return max(size) > _MAX_ASPECT * min(size)


def _look_in_grey(data: bytes) -> SeenImage | Refused:
    plain = plain_jpeg(data)
    if plain is None:
        image, size = decode_image(data)
    else:
        size = plain.size
        image = plain.decode(data, scale=plain.scale_for(2 * HASH_SIDE), grey=True)
    if _is_needle(size):
        return Refused("image_too_narrow")
    return SeenImage(size, hashlib.sha256(data).digest(), perceptual_hash(image))


def _look_in_colour(
    data: bytes, transform: Fitting | None, keep_image: bool
) -> SeenImage | Refused:
    side = transform.draft_size if transform else _TEXT_SIDE // 2
    image, size = decode_image(data, side)
    if _is_needle(size):
        return Refused("image_too_narrow")
    pixels = transform.fit(image) if transform else None
    hashed = perceptual_hash(image)
    if keep_image and max(image.size) < min(_TEXT_SIDE, max(size)):
        image, _ = decode_image(data, _TEXT_SIDE // 2)
    digest = hashlib.sha256(data).digest()
    return SeenImage(size, digest, hashed, pixels, image if keep_image else None)
