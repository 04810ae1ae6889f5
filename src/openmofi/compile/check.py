"""Does a compiled model find what the original finds? Two tasks whose truth needs no annotation.

crops     the middle of an image, enlarged, must find the image among all
captions  a caption must find its image among all
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from openmofi.model import MofiModel

_CROP = 0.7
"""Share of a side that the crop keeps."""
_AT_ONCE = 64
_RESAMPLE = Image.Resampling.BICUBIC


def largest_difference(one: Float[np.ndarray, "n D"], other: Float[np.ndarray, "n D"]) -> float:
    """Returns the largest difference of two numbers at the same place of unit vectors."""
    return float(np.abs(one - other).max(initial=0))


def least_cosine(one: Float[np.ndarray, "n D"], other: Float[np.ndarray, "n D"]) -> float:
    """Returns the least cosine of two unit vectors in the same row."""
    return float((one * other).sum(1).min(initial=1))


def reciprocal_ranks(
    queries: Float[np.ndarray, "q D"],
    targets: Float[np.ndarray, "n D"],
    own: Int[np.ndarray, " q"],
) -> Float[np.ndarray, " q"]:
    """Returns 1 / rank of each query's own target; with one target each, their mean is the mAP.

    Of equal cosines, half count as better.

    Args:
        queries: unit vectors.
        targets: unit vectors.
        own: row of each query's target.
    """
    cosines = queries @ targets.T
    right = np.take_along_axis(cosines, own[:, None], 1)
    better = (cosines > right).sum(1) + ((cosines == right).sum(1) - 1) / 2
    return 1 / (1 + better)


def finds(
    model: MofiModel,
    pixels: UInt8[np.ndarray, "n s s 3"],
    captions: Sequence[str],
    advance: Callable[[int], object] = int,
) -> tuple[Float[np.ndarray, "n D"], dict[str, Float[np.ndarray, " n"]]]:
    """Returns the images' vectors, and the reciprocal ranks of each task.

    There are captions only where the model reads texts.

    Args:
        model: the model.
        pixels: of images, as its transform returns them.
        captions: theirs, of which an empty one is no query.
        advance: told the number of images, whenever some were encoded; twice each.
    """
    images, crops = (_encode(model, part, advance) for part in (pixels, middles(pixels)))
    found = {"crops": reciprocal_ranks(crops, images, np.arange(len(pixels)))}
    asked = np.array([row for row, caption in enumerate(captions) if caption], int)
    if model.reads_texts and len(asked):
        texts = model.encode_texts([captions[row] for row in asked])
        found["captions"] = reciprocal_ranks(texts, images, asked)
    return images, found


def _encode(
    model: MofiModel, pixels: UInt8[np.ndarray, "n s s 3"], advance: Callable[[int], object]
) -> Float[np.ndarray, "n D"]:
    parts = []
    for start in range(0, len(pixels), _AT_ONCE):
        parts.append(model.encode_pixels(pixels[start : start + _AT_ONCE]))
        advance(len(parts[-1]))
    return np.concatenate(parts)


def middles(pixels: UInt8[np.ndarray, "n s s 3"]) -> UInt8[np.ndarray, "n s s 3"]:
    """Returns the middle of each image, enlarged to the image's size."""
    side = pixels.shape[1]
    edge = round(side * (1 - _CROP) / 2)
    box = (edge, edge, side - edge, side - edge)
    return np.stack(
        [
            np.asarray(Image.fromarray(image).crop(box).resize((side, side), _RESAMPLE))
            for image in pixels
        ]
    )
