"""One picture of an input -> pixels at an encoder's size, or the reason why not.

Reasons: image_missing (its file or shard is gone or shorter than it was), image_too_large (more
pixels than Pillow takes for honest, 89 million), image_too_narrow, corrupt_image.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from openmofi.model.transform import decode_picture
from openmofi.pairs import PICTURE_ERRORS, ImageReader

if TYPE_CHECKING:
    from openmofi.model.transform import Transform

# Beyond it, a picture whose shorter side is brought to 224 pixels would fill the memory.
_MAX_ASPECT = 200


def decode(
    reader: ImageReader, row: dict[str, Any], transform: Transform
) -> tuple[np.ndarray, tuple[int, int]] | str:
    """Returns (pixels uint8 [size, size, 3], the picture's own (width, height)), or a reason.

    Args:
        reader: of the input that the row is from.
        row: columns shard, offset, size and path.
        transform: brings the picture to the encoder's size.
    """
    try:
        data = reader.read(row)
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        return "image_missing"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image, size = decode_picture(data, transform.draft_size)
            if max(size) > _MAX_ASPECT * min(size):
                return "image_too_narrow"
            return transform.fit(image), size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "image_too_large"
    except PICTURE_ERRORS:
        return "corrupt_image"
