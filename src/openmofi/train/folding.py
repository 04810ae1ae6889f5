"""Linear maps -> the encoder's own last layer: an ordinary checkpoint.

A dual encoder of Hugging Face may end in bias-free projections (CLIPModel,
VisionTextDualEncoderModel). A map behind them is one more matrix, W' = M W, and the class stays. A
map that subtracts a mean or takes a power, M (x^p - mean) of unit vectors x, needs the step to unit
length before it: then the two sides become those of `model.dual.DualModel`, whose last maps they
are; so do SigLIP's and those of an image encoder alone. Encoders that cannot be taken apart
(open_clip's) keep their maps beside them.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from openmofi.model import MofiModel
from openmofi.model.dual import DualModel
from openmofi.model.sides import EncoderSide, image_side, join, text_side
from openmofi.train.linear_maps import Maps

TOLERANCE = 1e-5
"""Largest difference of a number of a unit vector between folded and mapped output."""


def can_fold(model: MofiModel) -> bool:
    """Says whether the sides of a model can be given further maps."""
    texts = not model.reads_texts or text_side(model.network, model.tokenizer) is not None
    return texts and image_side(model.network, model.transform) is not None


def folded(model: MofiModel, maps: Maps) -> MofiModel:
    """Returns the model with the maps folded in; other weights are shared with the given one."""
    image = image_side(model.network, model.transform)
    assert image is not None, "see can_fold"
    text = text_side(model.network, model.tokenizer)
    if maps.is_linear and not isinstance(model.network, DualModel) and image.maps and text:
        shared = {id(weight): weight for weight in model.network.parameters()}
        network = copy.deepcopy(model.network, shared)
        for name, map_DD in (("visual", maps.image_DD), ("text", maps.text_DD)):
            layer = getattr(network, f"{name}_projection")
            product = map_DD.double() @ layer.weight.detach().double().to(map_DD.device)
            layer.weight = nn.Parameter(product.to(layer.weight))
    else:
        image = _behind(image, maps.image_DD, maps.image_mean_D, maps.image_power)
        text = text and _behind(text, maps.text_DD, maps.text_mean_D, maps.text_power)
        network = join(image, text, dim=len(maps.image_DD))
        network.logit_scale.data.copy_(model.logit_scale.detach().reshape(()))
    return MofiModel(network, model.tokenizer, model.transform, str(model.device))


def _behind(
    side: EncoderSide, map_DD: torch.Tensor, mean_D: torch.Tensor, power: float
) -> EncoderSide:
    """Returns a side with one more map, as a part of its last one where no step lies between."""
    if mean_D.any() or power != 1 or not side.maps:
        return side.then(map_DD, mean_D, power)
    last = side.maps[-1]
    product = map_DD.double() @ last.weight.detach().double().to(map_DD.device)
    zero = torch.zeros(product.shape[1])
    before = replace(side, maps=side.maps[:-1])
    joined = before.then(product, zero, getattr(last, "power", 1.0))
    if last.bias is not None:
        joined.maps[-1].bias = nn.Parameter(map_DD @ last.bias.detach().to(map_DD.device))
    return joined


def largest_difference(model: MofiModel, adapted: MofiModel, maps: Maps) -> float:
    """Returns how far a folded model is from the maps behind the model, on random inputs."""
    side = model.transform.size
    pixels = np.random.default_rng(0).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    pairs = [(adapted.encode_pixels(pixels), maps.apply_to_images(model.encode_pixels(pixels)))]
    if model.reads_texts:
        texts = ["a", "a photo of a flag", "7 red apples, and one more", "Golden Delicious: apples"]
        expected = maps.apply_to_texts(model.encode_texts(texts))
        pairs.append((adapted.encode_texts(texts), expected))
    return max(float(np.abs(found - expected).max()) for found, expected in pairs)
