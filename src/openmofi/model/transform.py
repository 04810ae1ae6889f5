"""Images -> normalised float tensors, without torchvision.

Reads any Hugging Face preprocessor_config.json. There are two ways of resizing: `pillow`, as
CLIPImageProcessor does, and `mofi`, as MOFI's evaluation does: bilinear on the float tensor without
antialiasing, which PIL cannot reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from openmofi.errors import InputError
from openmofi.images.decode import ImageSource, read_image

_CONVNEXT_SQUEEZED = 384
"""Pixels per side from which on ConvNeXt's processor squeezes the whole image."""
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

_LONGEST_ASPECT = {"pillow": 16, "mofi": 200}
"""Longest aspect ratio; the ends of longer images are cut off before resizing. For `mofi` it is so
high that only images which images/look.py refuses are cut: cutting moves the sampling points, and
`mofi` must be exact to the last bit."""


@dataclass(frozen=True)
class Transform:
    """How images become the image tower's input."""

    size: int
    """Pixels per side of the network's input."""
    resize: str = "pillow"
    """pillow | mofi."""
    resample: int = 3
    """PIL's number of the filter: 2 bilinear, 3 bicubic."""
    keep_aspect: bool = True
    """Whether to resize the shorter side and crop the centre, instead of squeezing the image."""
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    resize_to: int | None = None
    """Pixels to which a side is resized before the centre is cropped; None means `size`."""
    crop_to_nearest: bool = False
    """How a margin of half pixels is rounded: to the even number, as in torchvision, or else down,
    as in transformers."""

    def pixels(self, source: ImageSource) -> UInt8[np.ndarray, "size size 3"]:
        """Returns the image at the input's size, not yet normalised (uint8 RGB)."""
        return self.fit(read_image(source, self.draft_size))

    @property
    def draft_size(self) -> int | None:
        """Side for which a JPEG may be decoded at reduced size; None if every pixel counts."""
        return None if self.resize == "mofi" else self.resized_side

    @property
    def resized_side(self) -> int:
        """Pixels to which the shorter side, or each side, is resized."""
        return self.resize_to or self.size

    def fit(self, image: Image.Image) -> UInt8[np.ndarray, "size size 3"]:
        """Returns an RGB image's pixels at the input's size; for `mofi`, rounded to integers."""
        image = self._without_needle_ends(image)
        if self.resize == "mofi":
            levels = (self._mofi_levels(image)[0].permute(1, 2, 0) * 255).round()
            return levels.to(torch.uint8).numpy()
        return np.asarray(self._resized(image), dtype=np.uint8)

    def normalise(self, pixels: UInt8[Tensor, "batch size size 3"]) -> Float[Tensor, "b 3 s s"]:
        """Returns network input from uint8 pixels, on the pixels' device."""
        mean = torch.tensor(self.mean, device=pixels.device)
        std = torch.tensor(self.std, device=pixels.device)
        scaled = (pixels.float() / 255.0 - mean) / std
        return scaled.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def __call__(self, sources: Sequence[ImageSource]) -> Float[Tensor, "batch 3 size size"]:
        """Returns network input for images of any size; exact to the last bit for `mofi`."""
        if self.resize == "mofi":
            images = (self._without_needle_ends(read_image(source)) for source in sources)
            levels = torch.cat([self._mofi_levels(image) for image in images])
            mean, std = torch.tensor(self.mean), torch.tensor(self.std)
            return (levels - mean[:, None, None]) / std[:, None, None]
        pixels = np.stack([self.pixels(source) for source in sources])
        return self.normalise(torch.from_numpy(pixels))

    def _without_needle_ends(self, image: Image.Image) -> Image.Image:
        """Cuts the unused ends off a very long image, which would be huge when resized."""
        width, height = image.size
        reach = _LONGEST_ASPECT[self.resize] * min(width, height)
        if max(width, height) <= reach:
            return image
        left, top = max((width - reach) // 2, 0), max((height - reach) // 2, 0)
        return image.crop((left, top, width - left, height - top))

    def _resized(self, image: Image.Image) -> Image.Image:
        if image.size == (self.size, self.size) and self.resized_side == self.size:
            return image
        side = self.resized_side
        target = _shorter_side(image.size, side) if self.keep_aspect else (side, side)
        if image.size != target:
            image = image.resize(target, self.resample)
        if target == (self.size, self.size):
            return image
        left, top = (self._margin(length) for length in target)
        return image.crop((left, top, left + self.size, top + self.size))

    def _margin(self, length: int) -> int:
        """Returns the number of pixels before the crop."""
        spare = length - self.size
        return round(spare / 2.0) if self.crop_to_nearest else spare // 2

    def _mofi_levels(self, image: Image.Image) -> Float[Tensor, "1 3 size size"]:
        """Returns levels from 0 to 1, resized as MOFI's evaluation does."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255.0
        width, height = _shorter_side(image.size, self.resized_side)
        resized = torch.nn.functional.interpolate(
            pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=False
        )
        left, top = round((width - self.size) / 2.0), round((height - self.size) / 2.0)
        return resized[:, :, top : top + self.size, left : left + self.size]


def _shorter_side(size: tuple[int, int], target: int) -> tuple[int, int]:
    """Returns (width, height) with a shorter side of `target`, rounded down as in torchvision."""
    width, height = size
    if width <= height:
        return target, max(int(target * height / width), target)
    return max(int(target * width / height), target), target


def from_processor_config(config: dict[str, Any]) -> Transform:
    """Returns the transform that a preprocessor_config.json describes.

    Raises:
        InputError: its images are not square, or their levels are not scaled to 0 to 1.
    """
    edges = config.get("size") or 224
    squeezes = "height" in edges if isinstance(edges, dict) else config.get("default_to_square")
    crops = bool(config.get("do_center_crop", True))
    side = _side(edges)
    size = _side(config.get("crop_size") or side) if crops else side
    if config.get("crop_pct"):  # ConvNeXt: `size` is what remains of a larger image
        crops, squeezes = True, side >= _CONVNEXT_SQUEEZED
        size, side = side, side if squeezes else int(side / config["crop_pct"])
    if size > side:
        raise InputError(
            f"The model's image processor crops {size} pixels out of {side}; expected a crop_size "
            "that is at most the size, so fix its preprocessor_config.json."
        )
    factor = config.get("rescale_factor") or 1 / 255
    scales = config.get("do_rescale", True) is not False and not config.get("rescale_offset")
    if not scales or abs(factor * 255 - 1) > 1e-3:
        raise InputError(
            f"The model's image processor multiplies levels by {factor:.6g} or shifts them; "
            "expected do_rescale with 1/255 and no rescale_offset, so pass another model."
        )
    if config.get("do_flip_channel_order"):
        raise InputError(
            "The model's image processor gives blue, green, red; expected red, green, blue "
            "(do_flip_channel_order), so pass another model."
        )
    normalises = config.get("do_normalize", True) is not False
    mean, std = config.get("image_mean") or OPENAI_MEAN, config.get("image_std") or OPENAI_STD
    if config.get("include_top") and "EfficientNet" in str(config.get("image_processor_type")):
        std = [value**2 for value in std]  # it divides by them twice
    return Transform(
        size=size,
        resize=config.get("openmofi_resize", "pillow"),
        resample=int(config.get("resample", 3)),
        keep_aspect=crops and not squeezes,
        mean=tuple(mean if normalises else (0.0, 0.0, 0.0)),
        std=tuple(std if normalises else (1.0, 1.0, 1.0)),
        resize_to=None if side == size else side,
        crop_to_nearest=bool(config.get("openmofi_crop_to_nearest")),
    )


def _side(edges: dict[str, int] | int) -> int:
    """Returns the side of the square that a processor's size describes."""
    if not isinstance(edges, dict):
        return int(edges)
    one = edges.get("shortest_edge") if "longest_edge" not in edges else None
    height, width = edges.get("height", one), edges.get("width", one)
    if height is None or height != width:
        raise InputError(
            f"The model's image processor resizes to {edges!r}; expected a shortest_edge, or a "
            "height and the same width, so pass a model of square images."
        )
    return int(height)


def to_processor_config(transform: Transform) -> dict[str, Any]:
    """Returns the preprocessor_config.json of a transform, in CLIPImageProcessor's terms."""
    side, resized = transform.size, transform.resized_side
    squeezed = {"height": resized, "width": resized}
    rounding = {"openmofi_crop_to_nearest": True} if transform.crop_to_nearest else {}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": resized} if transform.keep_aspect else squeezed,
        "do_center_crop": transform.keep_aspect or resized != side,
        "crop_size": {"height": side, "width": side},
        "resample": transform.resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
        "do_convert_rgb": True,
        "openmofi_resize": transform.resize,
        **rounding,
    }
