"""Images of soft patches of colour, each a thing of its own."""

import numpy as np
from PIL import Image

NUM_THINGS = 20


def draw(seed: int, size: tuple[int, int] = (90, 60)) -> Image.Image:
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)
