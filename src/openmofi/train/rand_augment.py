"""RandAugment (arXiv 1909.13719) for a whole batch on its device: uint8 pixels -> uint8 pixels.

Each image goes through a few operations, each drawn uniformly from the paper's fourteen, all of one
magnitude. The ranges are AutoAugment's (arXiv 1805.09501), on which RandAugment builds: rotations
up to 30 degrees, shears up to .3, shifts up to .45 of a side, 8 to 4 bits, and factors from .1 to
1.9 of colour, contrast, brightness and sharpness. The random numbers are given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.train.order import uniform

RAND_VERSION = 1
"""Stored with a teacher's vectors; increase it whenever the same numbers give other images."""
_DRAWS = 2
"""Random numbers of an operation: which one, and in which direction."""
_GREY = 128.0
"""What comes into view where an image is moved away."""
_LEVELS = 256

Pixels = UInt8[Tensor, "n 3 h w"]
Levels = Float[Tensor, " n"]
"""Magnitudes with a sign, from -1 to 1; what has no direction takes the absolute value."""


def operation_draws(
    index: Int[np.ndarray, " n"], *, num_ops: int, seed: int
) -> Float[np.ndarray, "n draws"]:
    """Returns the random numbers of some images' operations, which are a stream of their own."""
    key = random_key(seed, Purpose.OPERATIONS)
    return uniform(index, columns=_DRAWS * num_ops, key=key)


def rand_augment(
    pixels: UInt8[Tensor, "batch h w 3"],
    draws: Float[Tensor, "batch draws"],
    *,
    magnitude: float,
) -> UInt8[Tensor, "batch h w 3"]:
    """Returns the images after one operation for every two random numbers.

    Args:
        pixels: the images.
        draws: numbers from [0, 1), on the same device.
        magnitude: share of the ranges.
    """
    images = pixels.permute(0, 3, 1, 2).clone()
    for start in range(0, draws.shape[1], _DRAWS):
        chosen = (draws[:, start] * len(OPERATIONS)).long()
        levels = torch.where(draws[:, start + 1] < 0.5, -magnitude, magnitude)
        for number, operation in enumerate(OPERATIONS.values()):
            places = (chosen == number).nonzero()[:, 0]
            if len(places):
                images[places] = operation(images[places], levels[places])
    return images.permute(0, 2, 3, 1)


def _autocontrast(pixels: Pixels, _: Levels) -> Pixels:
    """Stretches each channel to all levels."""
    values = pixels.int()
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    stretched = (values - low) * 255 // (high - low).clamp(min=1)
    return torch.where(high > low, stretched, values).to(torch.uint8)


def _equalize(pixels: Pixels, _: Levels) -> Pixels:
    """Spreads the levels of each channel so that they are about equally frequent.

    As in Pillow: a level becomes the number of darker pixels and half a step, in steps of the
    number of pixels below the highest level / 255.
    """
    values = pixels.flatten(2).flatten(0, 1).long()
    counts = values.new_zeros(len(values), _LEVELS).scatter_add_(
        1, values, values.new_ones(()).expand_as(values)
    )
    highest = counts.gather(1, values.amax(1, keepdim=True))
    step = (values.shape[1] - highest) // 255
    darker = counts.cumsum(1) - counts
    table = ((darker + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(_LEVELS, device=pixels.device))
    return table.gather(1, values).to(torch.uint8).view_as(pixels)


def _rotate(pixels: Pixels, levels: Levels) -> Pixels:
    angle = torch.deg2rad(30 * levels)
    return _moved(pixels, xx=angle.cos(), xy=angle.sin(), yx=-angle.sin(), yy=angle.cos())


def _solarize(pixels: Pixels, levels: Levels) -> Pixels:
    """Inverts the levels from a threshold on."""
    threshold = _LEVELS * (1 - _each(levels.abs()))
    return torch.where(pixels >= threshold, 255 - pixels, pixels)


def _colour(pixels: Pixels, levels: Levels) -> Pixels:
    return _away_from(_grey(pixels), pixels, levels)


def _posterize(pixels: Pixels, levels: Levels) -> Pixels:
    """Keeps the highest bits of each level."""
    lost = _each((4 * levels.abs()).round().to(torch.uint8))
    return (pixels >> lost) << lost


def _contrast(pixels: Pixels, levels: Levels) -> Pixels:
    mean = _grey(pixels).float().mean((1, 2, 3), keepdim=True)
    return _away_from(mean.round(), pixels, levels)


def _brightness(pixels: Pixels, levels: Levels) -> Pixels:
    return _away_from(torch.zeros_like(pixels), pixels, levels)


def _sharpness(pixels: Pixels, levels: Levels) -> Pixels:
    """Blurs with the kernel 1 1 1, 1 5 1, 1 1 1, or the opposite; the outermost pixels stay."""
    values = pixels.float()
    smooth = values.clone()
    inner = values[:, :, 1:-1, 1:-1]
    smooth[:, :, 1:-1, 1:-1] = ((9 * F.avg_pool2d(values, 3, 1) + 4 * inner) / 13).round()
    return _away_from(smooth, pixels, levels)


def _shear_x(pixels: Pixels, levels: Levels) -> Pixels:
    return _moved(pixels, xy=0.3 * levels)


def _shear_y(pixels: Pixels, levels: Levels) -> Pixels:
    return _moved(pixels, yx=0.3 * levels)


def _translate_x(pixels: Pixels, levels: Levels) -> Pixels:
    return _moved(pixels, x=0.45 * levels)


def _translate_y(pixels: Pixels, levels: Levels) -> Pixels:
    return _moved(pixels, y=0.45 * levels)


OPERATIONS: dict[str, Callable[[Pixels, Levels], Pixels]] = {
    "identity": lambda pixels, _: pixels,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "colour": _colour,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""The paper's operations, in its order."""


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _grey(pixels: Pixels) -> Int[Tensor, "n 1 h w"]:
    """Returns the luma of ITU-R 601, in Pillow's integers."""
    red, green, blue = pixels.int().split(1, dim=1)
    return (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16


def _away_from(none_of_it: Tensor, pixels: Pixels, levels: Levels) -> Pixels:
    """Returns images with more or less of what `none_of_it` lacks: 1 +- .9 times as much."""
    none_of_it = none_of_it.float()
    changed = none_of_it + (pixels.float() - none_of_it) * (1 + 0.9 * _each(levels))
    return changed.clamp(0, 255).round().to(torch.uint8)


def _moved(
    pixels: Pixels,
    *,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    x: Tensor | float = 0.0,
    y: Tensor | float = 0.0,
) -> Pixels:
    """Samples each image where an affine map about its centre sends each place.

    Args:
        pixels: the images.
        xx: the entries of the map, in pixels.
        xy: as xx.
        yx: as xx.
        yy: as xx.
        x: shift to the right of where it is sampled, as a share of the width.
        y: shift down, as a share of the height.
    """
    height, width = pixels.shape[2:]
    window = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    # affine_grid counts from -1 to 1 along either side.
    window[:, 0, 0], window[:, 0, 1], window[:, 0, 2] = xx, xy * (height / width), 2 * x
    window[:, 1, 0], window[:, 1, 1], window[:, 1, 2] = yx * (width / height), yy, 2 * y
    grid = F.affine_grid(window, list(pixels.shape), align_corners=False)
    sampled = F.grid_sample(pixels.float() - _GREY, grid, align_corners=False)
    return (sampled + _GREY).clamp(0, 255).round().to(torch.uint8)
