"""MobileCLIP's image encoders, MCi: pixels -> projected features (arXiv 2311.17049 and 2508.20691).

A FastViT (2303.14189): a stem of three MobileOne blocks, stages of RepMixer blocks, of which the
last ones attend instead, and a last MobileOne block to twice the width; then the mean over places
and a linear projection. Between stages, a patch embedding halves the sides.

Legend: D channels of a stage, N places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from openmofi.model.mobileone import (
    ConvFeedForward,
    ConvShape,
    LargeKernel,
    MobileOneBlock,
    PositionConv,
    RepMixerBlock,
    ScaledConv,
    SqueezeExcite,
    build,
)

MODEL_TYPE = "mobileclip_image"
_HEAD = 32
"""Numbers of an attention head."""
_LARGE = (7, 7)


class MobileClipImageConfig(PretrainedConfig):
    """The numbers in which the encoders differ; the defaults are those of MCi0."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        depths: Sequence[int] = (2, 6, 10, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        ratio: int = 3,
        attending: int = 1,
        squeezed: int = 2,
        layer_norm: bool = False,
        stem_points: bool = True,
        projection_dim: int = 512,
        projection_bias: bool = False,
        image_size: int = 256,
        branches: bool = True,
        **others: Any,
    ):
        super().__init__(**others)
        self.depths, self.widths, self.ratio = list(depths), list(widths), ratio
        self.attending, self.squeezed = attending, squeezed
        """How many of the last stages attend, and how many begin with squeeze-excite."""
        self.layer_norm, self.stem_points = layer_norm, stem_points
        """Whether attention follows a norm over channels, not over the batch; whether the stem's
        blocks have a 1x1 branch."""
        self.projection_dim, self.projection_bias = projection_dim, projection_bias
        self.hidden_size, self.image_size = projection_dim, image_size
        self.branches = branches
        """Whether convolutions are sums of branches, as in training."""


class MobileClipImageModel(PreTrainedModel):
    """The image tower."""

    config_class = MobileClipImageConfig
    main_input_name = "pixel_values"

    def __init__(self, config: MobileClipImageConfig):
        super().__init__(config)
        self.stem = _stem(config)
        self.blocks = nn.ModuleList()
        stages, branches = len(config.depths), config.branches
        for stage, (depth, width) in enumerate(zip(config.depths, config.widths, strict=True)):
            attends = stage >= stages - config.attending
            if stage:
                squeezes = stage >= stages - config.squeezed
                before = config.widths[stage - 1]
                self.blocks.append(_PatchEmbedding(before, width, squeezes, branches))
            if attends:
                shape = ConvShape(width, width, _LARGE, groups=width)
                self.blocks.append(build(PositionConv, shape, branches))
            for _ in range(depth):
                self.blocks.append(
                    _AttentionBlock(width, config)
                    if attends
                    else RepMixerBlock(
                        width,
                        kernel=(3, 3),
                        ffn_kernel=_LARGE,
                        ratio=config.ratio,
                        branches=branches,
                    )
                )
        width = config.widths[-1]
        last = ConvShape(width, 2 * width, (3, 3), groups=width)
        self.last = MobileOneBlock(last, branches=branches, squeeze=16)
        self.projection = nn.Linear(2 * width, config.projection_dim, bias=config.projection_bias)
        nn.init.normal_(self.projection.weight, std=(2 * width) ** -0.5)
        self.post_init()

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> BaseModelOutputWithPooling:
        """Returns the last feature map, and the projection of its mean over places."""
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = block(x)
        x = self.last(x)
        return BaseModelOutputWithPooling(
            last_hidden_state=x, pooler_output=self.projection(x.mean((2, 3)))
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves every part as it was made."""


def _stem(config: MobileClipImageConfig) -> nn.Sequential:
    width = config.widths[0]
    shapes = (
        ConvShape(3, width, (3, 3), 2),
        ConvShape(width, width, (3, 3), 2, groups=width),
        ConvShape(width, width),
    )
    return nn.Sequential(
        *(
            MobileOneBlock(shape, branches=config.branches, point=config.stem_points)
            for shape in shapes
        )
    )


class _PatchEmbedding(nn.Module):
    """Halves the sides, and widens."""

    def __init__(self, wide: int, out: int, squeezes: bool, branches: bool):
        super().__init__()
        self.conv = build(LargeKernel, ConvShape(wide, out, _LARGE, 2, groups=wide), branches)
        self.squeeze = SqueezeExcite(out, out // 4) if squeezes else None
        self.mix = MobileOneBlock(ConvShape(out, out), branches=branches)

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        x = self.conv(x)
        return self.mix(F.gelu(x if self.squeeze is None else self.squeeze(x)))


class _AttentionBlock(nn.Module):
    """Mixes places by attention, then channels."""

    def __init__(self, width: int, config: MobileClipImageConfig):
        super().__init__()
        self.heads = width // _HEAD
        self.norm = ChannelNorm(width) if config.layer_norm else nn.BatchNorm2d(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = build(ScaledConv, ConvShape(width, width), config.branches)
        self.ffn = ConvFeedForward(
            width, kernel=_LARGE, ratio=config.ratio, branches=config.branches
        )
        for layer in (self.qkv, *self.out.modules()):
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        x = x + self.out(self._attended(self.norm(x)))
        return x + self.ffn(x)

    def _attended(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        batch, width, height, wide = x.shape
        qkv = self.qkv(x.flatten(2).mT).unflatten(-1, (3, self.heads, _HEAD))  # [b, N, 3, H, 32]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)  # [b, H, N, 32]
        return mixed.transpose(2, 3).reshape(batch, width, height, wide)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each place."""

    def forward(self, input: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns the normalised channels."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


AutoConfig.register(MODEL_TYPE, MobileClipImageConfig, exist_ok=True)
AutoModel.register(MobileClipImageConfig, MobileClipImageModel, exist_ok=True)
