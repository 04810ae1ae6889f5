"""The perceptual hash: a grey image -> 63 bits that survive resizing and recompression.

The DCT hash of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
(2010): 32 x 32 grey levels, their cosine transform, and of its low frequencies whether each lies
above the median. Images are near-duplicates if few bits differ. Unlike Zauner's, the purely
horizontal and vertical frequencies count, too: of a flag they are the most there is.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image

HASH_SIDE = 32
"""An image is reduced to this side; it should have at least twice as much before."""
_LOW = 8
# Rounding grey levels to whole numbers moves a coefficient by 0.3. Where the typical one is not
# above that, the bits would be noise, or worse, the same for all flat images.
_LEAST_STRUCTURE = 1.0


def perceptual_hash(image: Image.Image) -> int | None:
    """Returns the hash of an image, below 2**63, or None where it is too flat to tell."""
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
    """Returns the matrix that reduces `side` levels to HASH_SIDE and transforms these, [8, side].

    Reducing and transforming are both linear: one small product does both. Levels are reduced by
    a triangle twice as wide as a level of the reduced image, as Pillow's antialiased filter is.
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
    """Returns in how many bits two hashes differ."""
    return (one ^ other).bit_count()
