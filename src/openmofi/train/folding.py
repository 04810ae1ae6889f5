"""Linear maps -> the encoder's own projections: W' = M W, an ordinary checkpoint.

A dual encoder of Hugging Face ends in bias-free projections, visual_projection and text_projection
(CLIPModel, VisionTextDualEncoderModel). A map after a projection is one more matrix, so their
product replaces both, and the model gets neither slower nor larger. Other encoders end differently
(SigLIP in attention pooling with a bias, open_clip's in a bare parameter): their maps stay
separate.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from openmofi.model import MofiModel
from openmofi.train.linear_maps import Maps, apply_map

TOLERANCE = 1e-5
"""Largest difference between folded and mapped output in any number of a unit vector."""
_NAMES = ("visual_projection", "text_projection")


def can_fold(model: MofiModel) -> bool:
    """Returns whether both sides of a model end in a projection without bias."""
    layers = [getattr(model.network, name, None) for name in _NAMES]
    return all(isinstance(layer, torch.nn.Linear) and layer.bias is None for layer in layers)


@contextmanager
def folded(model: MofiModel, maps: Maps) -> Iterator[MofiModel]:
    """Yields the model with the maps folded in, and restores it afterwards."""
    weights = [getattr(model.network, name).weight for name in _NAMES]
    before = [weight.detach().clone() for weight in weights]
    try:
        for weight, map_DD in zip(weights, (maps.image_DD, maps.text_DD), strict=True):
            product = map_DD.double() @ weight.detach().double().to(map_DD.device)
            weight.data.copy_(product)
        yield model
    finally:
        for weight, old in zip(weights, before, strict=True):
            weight.data.copy_(old)


def largest_difference(model: MofiModel, maps: Maps) -> float:
    """Returns how much the folded model differs from the model followed by the maps."""
    side = model.transform.size
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    texts = ["a", "a photo of a flag", "7 red apples, and one more", "Golden Delicious: an apple"]
    expected = [
        apply_map(model.encode_pixels(pixels), maps.image_DD),
        apply_map(model.encode_texts(texts), maps.text_DD),
    ]
    with folded(model, maps):
        found = [model.encode_pixels(pixels), model.encode_texts(texts)]
    return max(float(np.abs(a - b).max()) for a, b in zip(expected, found, strict=True))
