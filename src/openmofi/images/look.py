"""One image of an input -> its size, hashes and pixels, or the reason why it is refused.

`look` returns the size, hashes and, for an encoder, pixels; `decode` only pixels. Does not import
torch, so that a job without an encoder starts at once.

Reasons: image_missing (the file or shard is gone or shorter than it was), image_too_large (more
than 89 million pixels, Pillow's limit), image_too_narrow, corrupt_image; for an unforeseen error,
the name of its type. An image that fails never affects other rows.
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
from openmofi.images.decode import decode_image, decode_untouched, refuse
from openmofi.images.jpeg import plain_jpeg
from openmofi.images.phash import HASH_SIDE, perceptual_hash
from openmofi.refused import Refused

# Above it, an image whose shorter side is resized to 224 pixels would exhaust the memory.
_MAX_ASPECT = 200
# Size to which rapidocr resizes the longer side before it looks for text.
_TEXT_SIDE = 736

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels."""


class Fitting(Protocol):
    """Resizes a decoded image for an encoder, as `openmofi.model.transform` does."""

    @property
    def draft_size(self) -> int | None:
        """Side for which a JPEG may be decoded; None if every pixel is needed."""
        ...

    def fit(self, image: Image.Image) -> np.ndarray:
        """Returns uint8 [size, size, 3]."""
        ...


@dataclass(frozen=True)
class SeenImage:
    """What is known of an image after decoding it once."""

    size: tuple[int, int]
    """Width and height, upright."""
    sha256: bytes
    """Digest of the encoded bytes."""
    phash: int | None
    """Perceptual hash, see images/phash.py; None: too flat to have one. It may differ by 2 bits
    with and without `pixels`, since images whose colours are not needed are decoded in grey."""
    pixels: np.ndarray | None = None
    """uint8 [size, size, 3] at an encoder's size; None without a transform."""
    image: Image.Image | None = None
    """RGB, for text detection; None unless requested."""


def look(
    data: bytes, transform: Fitting | None, *, keep_image: bool = False
) -> SeenImage | Refused:
    """Decodes an image and measures it; returns a Refused if that fails.

    Args:
        data: the encoded bytes.
        transform: resizes the image for the encoder; None: there is no encoder.
        keep_image: keep the decoded image, its longer side at least 736 pixels if it has them.
    """
    if transform is None and not keep_image:
        return _refusing(_look_in_grey, data)
    return _refusing(_look_in_colour, data, transform, keep_image)


def decode(
    read: Callable[..., bytes], row: Any, transform: Fitting
) -> tuple[np.ndarray, tuple[int, int]] | Refused:
    """Returns (pixels uint8 [size, size, 3], the image's own (width, height)), or a Refused.

    Args:
        read: reads the encoded bytes, such as `ImageReader.read`.
        row: its argument.
        transform: resizes the image for the encoder.
    """
    data = fetch(read, row)
    return data if isinstance(data, Refused) else _refusing(_pixels, data, transform)


def fetch(read: Callable[..., bytes], *place: Any) -> bytes | Refused:
    """Returns an image's encoded bytes, or a Refused.

    Args:
        read: reads them, such as `ImageReader.read`.
        place: its arguments.

    Raises:
        OpenMOFIError: no image can be read, for example because a package is missing.
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
    """Returns pixels uint8 [size, size, 3], or a Refused.

    Args:
        data: the encoded bytes.
        transform: resizes the image for the encoder.
        crop: the part of the image to use; None: all of it.
    """
    if crop is not None:
        return _refusing(_cropped_pixels, data, transform, crop)
    decoded = _refusing(_pixels, data, transform)
    return decoded if isinstance(decoded, Refused) else decoded[0]


def decode_stored(
    data: bytes, change: Callable[[Image.Image], np.ndarray | Refused]
) -> np.ndarray | Refused:
    """Returns what a function makes of an image as it is stored, or a Refused.

    Args:
        data: the encoded bytes.
        change: takes the image of `decode.decode_untouched`.
    """
    return _refusing(lambda encoded: change(decode_untouched(encoded)), data)


def _refusing(step: Any, data: bytes, *rest: Any) -> Any:
    """Returns the result of a step that decodes the bytes, or a Refused if it fails."""
    try:
        if plain_jpeg(data) is not None:
            return step(data, *rest)
        # Warning filters are global to the process and cost more than a small image's header.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata
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
