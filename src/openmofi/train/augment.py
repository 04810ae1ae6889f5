"""Random crops, colours and operations for a whole batch on its device: uint8 -> uint8 pixels.

The random numbers are given, so a step can be repeated exactly, by any number of processes.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from openmofi.config import AugmentSettings
from openmofi.train.rand_augment import rand_augment

CROPS_VERSION = 2
"""Stored with a teacher's vectors; increase it whenever the same numbers crop differently."""
NUM_DRAWS = 8
"""Random numbers per image: area, aspect, place (2), mirror, brightness, contrast, saturation."""


def augment(
    pixels: UInt8[Tensor, "batch h w 3"],
    settings: AugmentSettings,
    draws: Float[Tensor, "batch draws"],
) -> UInt8[Tensor, "batch h w 3"]:
    """Returns cropped, possibly mirrored, recoloured copies of the same size, then RandAugment's.

    Args:
        pixels: the images.
        settings: how much they are changed.
        draws: NUM_DRAWS numbers from [0, 1) for each image, on the same device, and those of
            rand_augment.operation_draws.
    """
    images = pixels.float().permute(0, 3, 1, 2)
    if settings.crop < 1.0 or settings.flip:
        images = _crop(images, settings, draws)
    if settings.colour > 0:
        # Scale brightness, contrast and saturation by factors in [1 - colour, 1 + colour].
        factors = (1 + settings.colour * (2 * draws[:, 5:NUM_DRAWS] - 1)).T[:, :, None, None, None]
        brightness, contrast, saturation = factors
        images = images * brightness
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = mean + (images - mean) * contrast
        grey = images.mean(dim=1, keepdim=True)
        images = grey + (images - grey) * saturation
    changed = images.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    if settings.rand_ops > 0:
        changed = rand_augment(changed, draws[:, NUM_DRAWS:], magnitude=settings.rand_magnitude)
    return changed


def _crop(images: Tensor, settings: AugmentSettings, draws: Tensor) -> Tensor:
    """Samples one window per image: area in [crop, 1], aspect 3/4 to 4/3 as far as it fits."""
    area = settings.crop + (1 - settings.crop) * draws[:, 0]
    # Limit the aspect; cutting a side that does not fit would make the area too small.
    reach = (-area.log()).clamp(max=math.log(4 / 3))
    aspect = (2 * reach * (draws[:, 1] - 0.5)).exp()
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    shift_x = (2 * draws[:, 2] - 1) * (1 - width)
    shift_y = (2 * draws[:, 3] - 1) * (1 - height)
    mirror = torch.ones_like(width)
    if settings.flip:
        mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    window = torch.zeros(len(images), 2, 3, device=images.device)
    window[:, 0, 0], window[:, 0, 2] = width * mirror, shift_x
    window[:, 1, 1], window[:, 1, 2] = height, shift_y
    grid = F.affine_grid(window, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
