"""A dual encoder made of any image encoder and any text encoder, or of one of the two alone.

    image -> encoder -> pooled features -> unit length, power -> linear map -> ... -> vector
    text  -> encoder -> pooled features -> unit length, power -> linear map -> ... -> vector

Each side has a chain of linear maps with a step to unit length before each, after which the numbers
may be raised to a power, signs kept, which tames the few large ones that pooling leaves. So a map
that was learnt on cached unit vectors, with the mean it subtracts as its bias, becomes part of the
network exactly. A side without maps ends in its pooled features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

MODEL_TYPE = "openmofi_dual"
MapShape = tuple[int, int, bool, float]
"""(features in, features out, whether there is a bias, power) of a map."""
_TINY = 1e-6
"""Keeps the slope of a power finite at 0."""


class DualConfig(PretrainedConfig):
    """The two encoders, how their output is pooled, and the shapes of the maps behind them."""

    model_type = MODEL_TYPE
    sub_configs: ClassVar[dict[str, Any]] = {  # pyrefly: ignore[bad-override]
        "vision_config": AutoConfig,
        "text_config": AutoConfig,
    }

    def __init__(
        self,
        vision_config: Any = None,
        text_config: Any = None,
        vision_pooling: str = "pooler",
        text_pooling: str = "mean",
        visual_maps: Sequence[MapShape] = (),
        text_maps: Sequence[MapShape] = (),
        projection_dim: int = 0,
        **others: Any,
    ):
        # First, or it would overwrite the parts' way of computing attention.
        super().__init__(**others)
        self.vision_config = _config(vision_config)
        self.text_config = _config(text_config)
        self.vision_pooling, self.text_pooling = vision_pooling, text_pooling
        self.visual_maps, self.text_maps = list(visual_maps), list(text_maps)
        self.projection_dim = projection_dim


def _config(given: Any) -> Any:
    return AutoConfig.for_model(**given) if isinstance(given, dict) else given


class DualModel(PreTrainedModel):
    """The network; its parts are named as in transformers' other dual encoders."""

    config_class = DualConfig
    main_input_name = "pixel_values"

    def __init__(
        self,
        config: DualConfig,
        vision_model: torch.nn.Module | None = None,
        text_model: torch.nn.Module | None = None,
    ):
        parts = [part for part in (config.vision_config, config.text_config) if part is not None]
        attention = [part._attn_implementation for part in parts]
        super().__init__(config)
        for part, own in zip(parts, attention, strict=True):
            part._attn_implementation = own  # the class before resets each encoder's choice
        if config.vision_config is not None:
            self.vision_model = vision_model or build_encoder(config.vision_config)
            _drop_pooler(self.vision_model, config.vision_pooling)
            self.visual_projection = _maps(config.visual_maps)
        if config.text_config is not None:
            self.text_model = text_model or build_encoder(config.text_config)
            _drop_pooler(self.text_model, config.text_pooling)
            self.text_projection = _maps(config.text_maps)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.post_init()

    @property
    def reads_texts(self) -> bool:
        """Whether there is a text side."""
        return self.config.text_config is not None

    def get_image_features(self, pixel_values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b D"]:
        """Returns image features, of any length."""
        output = self.vision_model(pixel_values=pixel_values)
        return _mapped(pool(output, self.config.vision_pooling), self.visual_projection)

    def get_text_features(
        self, input_ids: Int[Tensor, "b length"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, "b D"]:
        """Returns text features, of any length."""
        masked = {} if attention_mask is None else {"attention_mask": attention_mask}
        output = self.text_model(input_ids=input_ids, **masked)
        return _mapped(pool(output, self.config.text_pooling, attention_mask), self.text_projection)

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leaves every part as its own class made it: all weights come from elsewhere."""


class UnitLinear(torch.nn.Linear):
    """A linear map behind the step to unit length and a power."""

    def __init__(self, wide: int, out: int, bias: bool, power: float = 1.0):
        super().__init__(wide, out, bias=bias)
        self.power = power

    def forward(self, input: Float[Tensor, "b F"]) -> Float[Tensor, "b D"]:
        """Returns the map of features of any length but zero."""
        return super().forward(unit_power(input, self.power))


def unit_power(features: Float[Tensor, "b F"], power: float) -> Float[Tensor, "b F"]:
    """Returns features of length 1, their numbers raised to a power between, signs kept."""
    unit = F.normalize(features, dim=-1)
    if power == 1:
        return unit
    return F.normalize(unit * (unit.abs() + _TINY) ** (power - 1), dim=-1)


def build_encoder(config: Any) -> torch.nn.Module:
    """Returns an encoder with random weights."""
    from transformers import SiglipTextModel
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    # T5 without its decoder, and others; SigLIP's is in none of transformers' tables.
    alone: Any = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    if config.model_type == "siglip_text_model":
        alone = SiglipTextModel
    return AutoModel.from_config(config) if alone is None else alone(config)


def pool(
    output: Any, pooling: str, attention_mask: Int[Tensor, "b length"] | None = None
) -> Float[Tensor, "b D"]:
    """Returns one vector per image or text from an encoder's output.

    Args:
        output: of the encoder, as transformers names its parts.
        pooling: pooler, the encoder's own; cls, the first token; last, the last token that is
            not padding; mean or max, over the tokens.
        attention_mask: 0 where a token is padding; without it, every token counts.
    """
    if pooling == "pooler":
        return output.pooler_output.flatten(1)  # of convolutions: [b, D, 1, 1]
    tokens_BLD = output.last_hidden_state
    if tokens_BLD.ndim == 4:
        tokens_BLD = tokens_BLD.flatten(2).mT
    if pooling == "cls":
        return tokens_BLD[:, 0]
    if attention_mask is None:
        attention_mask = torch.ones(tokens_BLD.shape[:2], device=tokens_BLD.device)
    if pooling == "last":
        places_L = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
        last_B = (attention_mask * places_L).argmax(1)  # padding may be on either side
        return tokens_BLD[torch.arange(len(tokens_BLD), device=last_B.device), last_B]
    mask_BL1 = attention_mask[..., None].to(tokens_BLD.dtype)
    if pooling == "max":
        return tokens_BLD.masked_fill(mask_BL1 == 0, -torch.inf).amax(1)
    assert pooling == "mean", pooling
    return (tokens_BLD * mask_BL1).sum(1) / mask_BL1.sum(1).clamp(min=1e-9)


def _mapped(features: Float[Tensor, "b F"], maps: torch.nn.ModuleList) -> Float[Tensor, "b D"]:
    for linear in maps:
        features = linear(features)
    return features


def _maps(shapes: Sequence[MapShape]) -> torch.nn.ModuleList:
    return torch.nn.ModuleList(UnitLinear(*shape) for shape in shapes)


def _drop_pooler(encoder: Any, pooling: str) -> None:
    """Removes a pooling layer that is not used, whose weights few checkpoints have."""
    if pooling != "pooler" and getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None


AutoConfig.register(MODEL_TYPE, DualConfig, exist_ok=True)
AutoModel.register(DualConfig, DualModel, exist_ok=True)
