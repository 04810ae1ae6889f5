"""The perceptual hash: a grey image -> 63 bits that survive resizing and recompression.

The DCT hash of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
(2010): 32 x 32 grey levels, their cosine transform, and one bit per low frequency: whether it lies
above the median. Images are near-duplicates if few bits differ. Unlike Zauner's, this hash includes
the purely horizontal and vertical frequencies, which are most of a flag.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

HASH_SIDE = 32
"""Side to which an image is reduced; it should be at least twice as large before."""
_LOW = 8
# Rounding grey levels to integers changes a coefficient by 0.3. If the typical one is not larger
# than that, the bits would be noise or, worse, the same for all flat images.
_LEAST_STRUCTURE = 1.0


def perceptual_hash(image: Image.Image) -> int | None:
    """Returns the hash of an image, below 2**63, or None if the image is too flat for one."""
    grey = image if image.mode == "L" else image.convert("L")
    surplus = min(grey.size) // (4 * HASH_SIDE)
    if surplus > 1:
        grey = grey.reduce(surplus)
    width, height = grey.size
    levels = np.frombuffer(grey.tobytes(), np.uint8).reshape(height, width).astype(np.float32)
    low = (_lowest(height) @ levels @ _lowest(width).T).ravel()[1:]
    order = np.sort(low)
    middle = len(low) // 2
    if order[middle + middle // 2] - order[middle // 2] < 2 * _LEAST_STRUCTURE:
        return None
    return int.from_bytes(np.packbits(low > order[middle]).tobytes(), "big") >> 1


@lru_cache(maxsize=2048)
def _lowest(side: int) -> np.ndarray:
    """Returns the matrix [8, side] that reduces `side` levels to HASH_SIDE and transforms these.

    Both steps are linear, so that one small product does both. Levels are reduced with a triangle
    filter twice as wide as a level of the reduced image, as in Pillow's antialiased resize.
    """
    row, column = np.mgrid[0:_LOW, 0:HASH_SIDE]
    cosines = np.cos(np.pi * row * (2 * column + 1) / (2 * HASH_SIDE)) * np.sqrt(2 / HASH_SIDE)
    cosines[0] /= np.sqrt(2)
    step = side / HASH_SIDE
    centres = (np.arange(HASH_SIDE)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(1 - np.abs(np.arange(side) - centres) / max(step, 1), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return (cosines @ weights).astype(np.float32)


def distance(one: int, other: int) -> int:
    """Returns the number of bits in which two hashes differ."""
    return (one ^ other).bit_count()
