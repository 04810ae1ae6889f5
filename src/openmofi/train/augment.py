"""Random crops and colours for a whole batch on its device: uint8 pixels -> uint8 pixels.

Every draw comes from the generator given, so a step can be repeated exactly.
"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F

from openmofi.config import AugmentSettings


def augment(
    pixels: UInt8[Tensor, "batch h w 3"], settings: AugmentSettings, generator: torch.Generator
) -> UInt8[Tensor, "batch h w 3"]:
    """Returns cropped, possibly mirrored, recoloured copies of the same size."""
    images = pixels.float().permute(0, 3, 1, 2)
    if settings.crop < 1.0 or settings.flip:
        images = _crop(images, settings, generator)
    if settings.colour > 0:
        images = _recolour(images, settings.colour, generator)
    return images.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def _crop(images: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Samples one window per image: area in [crop, 1], aspect 3/4 to 4/3."""
    count, device = len(images), images.device
    draws = torch.rand(count, 5, generator=generator).to(device)
    area = settings.crop + (1 - settings.crop) * draws[:, 0]
    reach = 0.2877 if settings.crop < 1 else 0.0  # log(4/3)
    aspect = (2 * reach * (draws[:, 1] - 0.5)).exp()
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    shift_x = (2 * draws[:, 2] - 1) * (1 - width)
    shift_y = (2 * draws[:, 3] - 1) * (1 - height)
    mirror = torch.ones(count, device=device)
    if settings.flip:
        mirror = torch.where(draws[:, 4] < 0.5, -1.0, 1.0)
    window = torch.zeros(count, 2, 3, device=device)
    window[:, 0, 0], window[:, 0, 2] = width * mirror, shift_x
    window[:, 1, 1], window[:, 1, 2] = height, shift_y
    grid = F.affine_grid(window, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _recolour(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scales brightness, contrast and saturation by factors in [1 - s, 1 + s]."""
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator).to(images.device)
    brightness, contrast, saturation = 1 + strength * (2 * draws - 1)
    images = images * brightness
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = mean + (images - mean) * contrast
    grey = images.mean(dim=1, keepdim=True)
    return grey + (images - grey) * saturation
