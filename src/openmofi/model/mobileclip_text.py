"""MobileCLIP's text encoders: tokens -> projected features (arXiv 2311.17049).

Pre-norm transformer layers in which every token sees all others, the padding included: every text
is as long as the context. MCt has a RepMixer block, which mixes neighbouring tokens, before and
after them. A text is read at its end.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from openmofi.model.mobileone import RepMixerBlock

MODEL_TYPE = "mobileclip_text"
_KERNEL = (1, 11)


class MobileClipTextConfig(PretrainedConfig):
    """The numbers in which the towers differ; the defaults are those of MCt."""

    model_type = MODEL_TYPE

    def __init__(
        self,
        vocab_size: int = 49408,
        width: int = 512,
        layers: int = 4,
        heads: int = 8,
        mixes: bool = True,
        projection_dim: int = 512,
        max_position_embeddings: int = 77,
        bos_token_id: int | None = 49406,
        eos_token_id: int | None = 49407,
        pad_token_id: int | None = 0,
        branches: bool = True,
        **others: Any,
    ):
        # transformers would otherwise drop what it does not know.
        super().__init__(**others)
        self.bos_token_id, self.eos_token_id = bos_token_id, eos_token_id
        self.pad_token_id = pad_token_id
        """What stands behind the end of a text, whatever the tokenizer wrote there."""
        self.vocab_size, self.width, self.layers, self.heads = vocab_size, width, layers, heads
        self.mixes = mixes
        """Whether there are RepMixer blocks around the layers."""
        self.projection_dim = self.hidden_size = projection_dim
        self.max_position_embeddings = max_position_embeddings
        self.branches = branches
        """Whether convolutions are sums of branches, as in training."""


class MobileClipTextModel(PreTrainedModel):
    """The text tower."""

    config_class = MobileClipTextConfig
    main_input_name = "input_ids"

    def __init__(self, config: MobileClipTextConfig):
        super().__init__(config)
        width = config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Parameter(torch.empty(config.max_position_embeddings, width))
        layers: list[nn.Module] = [
            _TransformerLayer(width, config.heads) for _ in range(config.layers)
        ]
        if config.mixes:
            layers = [_MixerLayer(width, config), *layers, _MixerLayer(width, config)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, config.projection_dim, bias=False)
        for weight in (
            self.token_embedding.weight,
            self.position_embedding,
            self.projection.weight,
        ):
            nn.init.normal_(weight, std=width**-0.5)
        self.post_init()

    def forward(
        self, input_ids: Int[Tensor, "b length"], attention_mask: Tensor | None = None
    ) -> BaseModelOutputWithPooling:
        """Returns every token's features, and the projection of those at the end of the text.

        Args:
            input_ids: tokens, of which those behind a text's end do not matter.
            attention_mask: not used.
        """
        del attention_mask
        context, pad = self.config.max_position_embeddings, self.config.pad_token_id
        if input_ids.shape[1] < context:
            input_ids = F.pad(input_ids, (0, context - input_ids.shape[1]), value=pad)
        ends_B = (input_ids == self.config.eos_token_id).int().argmax(1)
        places_L = torch.arange(context, device=input_ids.device)
        input_ids = input_ids.masked_fill(places_L > ends_B[:, None], pad)
        x = self.token_embedding(input_ids) + self.position_embedding
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        at_end = x[torch.arange(x.shape[0], device=x.device), ends_B]  # len() fixes it in ONNX
        return BaseModelOutputWithPooling(
            last_hidden_state=x, pooler_output=self.projection(at_end)
        )

    def _init_weights(self, module: nn.Module) -> None:
        """Leaves every part as it was made."""


class _TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each behind a norm."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b L D"]) -> Float[Tensor, "b L D"]:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))  # [b, L, 3, H, D / H]
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class _MixerLayer(RepMixerBlock):
    """A RepMixer block over tokens."""

    def __init__(self, width: int, config: MobileClipTextConfig):
        kernels = {"kernel": _KERNEL, "ffn_kernel": _KERNEL}
        super().__init__(width, **kernels, ratio=4, branches=config.branches)

    def forward(self, x: Float[Tensor, "b L D"]) -> Float[Tensor, "b L D"]:
        # FSDP does not like views to be returned.
        return super().forward(x.mT[:, :, None]).flatten(2).mT.contiguous()


AutoConfig.register(MODEL_TYPE, MobileClipTextConfig, exist_ok=True)
AutoModel.register(MobileClipTextConfig, MobileClipTextModel, exist_ok=True)
