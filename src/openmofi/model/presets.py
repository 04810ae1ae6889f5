"""Architectures by name, as Hugging Face configurations: preset name -> untrained network.

nano: MobileNetV1 (depth 0.5) and one CLIP text layer, for a CPU, on which batch-normalised
convolutions learn within minutes; a ViT or ConvNeXt of the same cost barely starts to.
b16, l14, h14: the shapes of the published MOFI checkpoints (arXiv 2306.07952).
s0, s1, s2: MobileCLIP's (arXiv 2311.17049), for telephones and processors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openmofi.errors import SettingsError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from openmofi.model.transform import Transform


@dataclass(frozen=True)
class ViTShape:
    """The numbers in which CLIP-shaped presets differ."""

    vision_width: int
    vision_layers: int
    vision_heads: int
    patch_size: int
    text_width: int
    text_layers: int
    text_heads: int
    projection_dim: int


VIT_PRESETS = {
    "b16": ViTShape(768, 12, 12, 16, 512, 12, 8, 512),
    "l14": ViTShape(1024, 24, 16, 14, 768, 12, 12, 768),
    "h14": ViTShape(1280, 32, 16, 14, 1024, 24, 16, 1024),
}


@dataclass(frozen=True)
class MobileShape:
    """The numbers in which MobileCLIP's presets differ."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    text_layers: int
    text_mixes: bool
    """Whether RepMixer blocks stand around the text tower's layers."""


MOBILE_PRESETS = {
    "s0": MobileShape((2, 6, 10, 2), (64, 128, 256, 512), 4, True),
    "s1": MobileShape((4, 12, 20, 4), (64, 128, 256, 512), 12, False),
    "s2": MobileShape((4, 12, 24, 4), (80, 160, 320, 640), 12, False),
}
IMAGE_SIZES = {"nano": 64, "b16": 224, "l14": 224, "h14": 224, "s0": 256, "s1": 256, "s2": 256}
CONTEXT_LENGTHS = {"nano": 20}
"""Tokens of a text; 77 where a preset is not here."""
NANO_DEPTH = 0.5
NANO_DIM = 256
"""Width of the vectors and of the text layer; large enough to tell hundreds of names apart."""
NANO_TEXT_HIDDEN = 256  # the usual 4 x width takes a CPU as long as the whole image tower


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the tokenizer's special tokens.

    `eos` must not be 2: transformers' CLIP text model takes an eos_token_id of 2 for OpenAI's
    legacy configuration and then pools at the largest id, which may be the wrong token.
    """

    vocab_size: int
    bos: int
    eos: int
    pad: int


def build_network(preset: str, tokens: SpecialTokens, *, image_size: int) -> PreTrainedModel:
    """Returns an untrained network; the caller seeds torch.

    Raises:
        SettingsError: the preset does not exist.
    """
    if preset == "nano":
        return _build_nano(tokens, image_size)
    if preset in MOBILE_PRESETS:
        return _build_mobile(MOBILE_PRESETS[preset], tokens, image_size)
    if preset not in VIT_PRESETS:
        known = ", ".join(["nano", *VIT_PRESETS, *MOBILE_PRESETS])
        raise SettingsError(f"There is no preset {preset!r}; choose one of {known}.")
    return _build_vit(VIT_PRESETS[preset], tokens, image_size)


def _text_config(
    tokens: SpecialTokens,
    *,
    width: int,
    layers: int,
    heads: int,
    context: int,
    hidden: int | None = None,
):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=tokens.vocab_size,
        hidden_size=width,
        intermediate_size=hidden or 4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        bos_token_id=tokens.bos,
        eos_token_id=tokens.eos,
        pad_token_id=tokens.pad,
    )


def _build_vit(shape: ViTShape, tokens: SpecialTokens, image_size: int) -> PreTrainedModel:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width,
        intermediate_size=4 * shape.vision_width,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads,
        image_size=image_size,
        patch_size=shape.patch_size,
    )
    text = _text_config(
        tokens,
        width=shape.text_width,
        layers=shape.text_layers,
        heads=shape.text_heads,
        context=77,
    )
    config = CLIPConfig(
        text_config=text.to_dict(),
        vision_config=vision.to_dict(),
        projection_dim=shape.projection_dim,
    )
    return CLIPModel(config)


def _build_mobile(shape: MobileShape, tokens: SpecialTokens, image_size: int) -> PreTrainedModel:
    from openmofi.model.mobileclip_image import MobileClipImageConfig
    from openmofi.model.mobileclip_text import MobileClipTextConfig

    return dual_of_towers(
        MobileClipImageConfig(depths=shape.depths, widths=shape.widths, image_size=image_size),
        MobileClipTextConfig(
            vocab_size=tokens.vocab_size,
            layers=shape.text_layers,
            mixes=shape.text_mixes,
            bos_token_id=tokens.bos,
            eos_token_id=tokens.eos,
            pad_token_id=tokens.pad,
        ),
    )


def dual_of_towers(image: Any, text: Any) -> PreTrainedModel:
    """Returns an untrained network of two towers that end in vectors of the same space.

    Args:
        image: configuration of the image tower.
        text: of the text tower.
    """
    from openmofi.model.dual import DualConfig, DualModel

    config = DualConfig(
        vision_config=image,
        text_config=text,
        text_pooling="pooler",
        projection_dim=image.projection_dim,
    )
    return DualModel(config)


def preset_transform(preset: str, *, image_size: int) -> Transform:
    """Returns how images enter a preset."""
    from openmofi.model.transform import Transform

    if preset in MOBILE_PRESETS:  # bilinear, levels from 0 to 1
        return Transform(image_size, resample=2, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return Transform(image_size)


def _build_nano(tokens: SpecialTokens, image_size: int) -> PreTrainedModel:
    import torch
    from transformers import (
        MobileNetV1Config,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
    )

    # tf_padding computes paddings in Python for every call; plain padding is as good from scratch.
    # After a batch norm hardly any number is above 6, and on a CPU relu is faster than relu6.
    vision = MobileNetV1Config(
        depth_multiplier=NANO_DEPTH, image_size=image_size, tf_padding=False, hidden_act="relu"
    )
    vision.hidden_size = int(1024 * NANO_DEPTH)  # the dual encoder reads it for its projection
    context = CONTEXT_LENGTHS["nano"]
    text = _text_config(
        tokens, width=NANO_DIM, layers=1, heads=4, context=context, hidden=NANO_TEXT_HIDDEN
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(
        vision, text, projection_dim=NANO_DIM
    )
    network: Any = VisionTextDualEncoderModel(config)
    # Words must outweigh their positions from the first step (CLIP starts both at std 0.02), and
    # the end token, at which the text is read, must not outweigh the words.
    embeddings = network.text_model.embeddings
    torch.nn.init.normal_(embeddings.token_embedding.weight, std=0.1)
    torch.nn.init.normal_(embeddings.position_embedding.weight, std=0.002)
    mend_batch_norm(network)
    return network


def mend_batch_norm(network: torch.nn.Module) -> None:
    """Gives batch norms torch's momentum of 0.1.

    transformers passes TensorFlow's 0.9997 to MobileNet where torch expects 1 - 0.9997, so the
    running statistics would be those of the last batch only.
    """
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and (module.momentum or 0) > 0.9:
            module.momentum = 0.1
