"""MobileCLIP as published, step by step: parameters by Apple's names, and what they compute.

Names, shapes and order of the steps are those of https://github.com/apple/ml-mobileclip
(mobileclip/models/mci.py, modules/, text_encoder.py); nothing of the package is used. `write`
makes random weights whose batch norms and layer scales are far from those of a fresh network.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional as F

IMAGE, TEXT = "image_encoder.model.", "text_encoder."


@dataclass(frozen=True)
class Published:
    """The numbers of a network; a tiny one by default."""

    depths: tuple = (1, 2, 1, 1)
    widths: tuple = (16, 32, 64, 128)
    text_layers: int = 2
    mixes: bool = True
    text_width: int = 128
    vocab: int = 300
    context: int = 77
    dim: int = 24


class _Weights(dict):
    """Random weights, by name."""

    def __init__(self, seed):
        super().__init__()
        self._random = torch.Generator().manual_seed(seed)

    def normal(self, name, *shape, std=None):
        std = std or (torch.tensor(shape[1:]).prod().item() or 1) ** -0.5
        self[name] = torch.randn(shape, generator=self._random) * std

    def uniform(self, name, width, low, high):
        self[name] = low + (high - low) * torch.rand(width, generator=self._random)

    def linear(self, name, out, *rest):
        self.normal(f"{name}.weight", out, *rest)
        self.normal(f"{name}.bias", out, std=0.1)

    def norm(self, name, width, *, running=True):
        self.uniform(f"{name}.weight", width, 0.5, 1.5)
        self.normal(f"{name}.bias", width, std=0.3)
        if running:
            self.normal(f"{name}.running_mean", width, std=0.3)
            self.uniform(f"{name}.running_var", width, 0.5, 1.5)
            self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def mobile_one(self, name, wide, out, kernel, *, stride=1, groups=1):
        self.normal(f"{name}.rbr_conv.0.conv.weight", out, wide // groups, *kernel)
        self.norm(f"{name}.rbr_conv.0.bn", out)
        if kernel[0] > 1:
            self.normal(f"{name}.rbr_scale.conv.weight", out, wide // groups, 1, 1)
            self.norm(f"{name}.rbr_scale.bn", out)
        if wide == out and stride == 1:
            self.norm(f"{name}.rbr_skip", out)

    def scale(self, name, width):
        self.normal(name, width, 1, 1, std=0.3)

    def ffn(self, name, width, kernel, ratio):
        self.normal(f"{name}.conv.conv.weight", width, 1, *kernel)
        self.norm(f"{name}.conv.bn", width)
        self.linear(f"{name}.fc1", ratio * width, width, 1, 1)
        self.linear(f"{name}.fc2", width, ratio * width, 1, 1)

    def rep_mixer(self, name, width, kernel, ffn_kernel, ratio):
        self.norm(f"{name}.token_mixer.norm.rbr_skip", width)
        self.mobile_one(f"{name}.token_mixer.mixer", width, width, kernel, groups=width)
        self.scale(f"{name}.token_mixer.layer_scale", width)
        self.ffn(f"{name}.convffn", width, ffn_kernel, ratio)
        self.scale(f"{name}.layer_scale", width)


def write(shape: Published, seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns random weights by their published names."""
    weights = _Weights(seed)
    _write_image(weights, shape)
    _write_text(weights, shape)
    weights["logit_scale"] = torch.tensor(4.6)
    return dict(weights)


def _write_image(weights, shape):
    width = shape.widths[0]
    weights.mobile_one(f"{IMAGE}patch_embed.0", 3, width, (3, 3), stride=2)
    weights.mobile_one(f"{IMAGE}patch_embed.1", width, width, (3, 3), stride=2, groups=width)
    weights.mobile_one(f"{IMAGE}patch_embed.2", width, width, (1, 1))
    place = 0
    for stage, (depth, width) in enumerate(zip(shape.depths, shape.widths, strict=True)):
        if stage:
            patch = f"{IMAGE}network.{place}.proj"
            for name, side in (("lkb_origin", 7), ("small_conv", 3)):
                weights.normal(f"{patch}.0.{name}.conv.weight", width, 1, side, side)
                weights.norm(f"{patch}.0.{name}.bn", width)
            if stage >= 2:
                weights.linear(f"{patch}.0.se.fc1", width // 4, width, 1, 1)
                weights.linear(f"{patch}.0.se.fc2", width, width // 4, 1, 1)
            weights.mobile_one(f"{patch}.1", width, width, (1, 1))
            place += 1
        if stage == 3:
            weights.linear(f"{IMAGE}network.{place}.pe", width, 1, 7, 7)
            place += 1
        for number in range(depth):
            name = f"{IMAGE}network.{place}.{number}"
            if stage < 3:
                weights.rep_mixer(name, width, (3, 3), (7, 7), 3)
                continue
            weights.norm(f"{name}.norm", width)
            weights.normal(f"{name}.token_mixer.qkv.weight", 3 * width, width)
            weights.linear(f"{name}.token_mixer.proj", width, width)
            weights.ffn(f"{name}.convffn", width, (7, 7), 3)
            weights.scale(f"{name}.layer_scale_1", width)
            weights.scale(f"{name}.layer_scale_2", width)
        place += 1
    last = f"{IMAGE}conv_exp"
    weights.mobile_one(last, width, 2 * width, (3, 3), groups=width)
    weights.linear(f"{last}.se.reduce", 2 * width // 16, 2 * width, 1, 1)
    weights.linear(f"{last}.se.expand", 2 * width, 2 * width // 16, 1, 1)
    weights.normal(f"{IMAGE}head.proj", 2 * width, shape.dim)


def _write_text(weights, shape):
    width, first = shape.text_width, int(shape.mixes)
    weights.normal(f"{TEXT}embedding_layer.weight", shape.vocab, width, std=1)
    position = f"{TEXT}positional_embedding.pos_embed.pos_embed"
    weights.normal(position, 1, 1, shape.context, width, std=1)
    if shape.mixes:
        for place in (0, shape.text_layers + 1):
            weights.rep_mixer(f"{TEXT}transformer.{place}", width, (1, 11), (1, 11), 4)
    for number in range(shape.text_layers):
        name = f"{TEXT}transformer.{number + first}."
        weights.norm(f"{name}pre_norm_mha.0", width, running=False)
        weights.linear(f"{name}pre_norm_mha.1.qkv_proj", 3 * width, width)
        weights.linear(f"{name}pre_norm_mha.1.out_proj", width, width)
        weights.norm(f"{name}pre_norm_ffn.0", width, running=False)
        weights.linear(f"{name}pre_norm_ffn.1", 4 * width, width)
        weights.linear(f"{name}pre_norm_ffn.4", width, 4 * width)
    weights.norm(f"{TEXT}final_layer_norm", width, running=False)
    weights.normal(f"{TEXT}projection_layer", width, shape.dim)


class Steps:
    """What published weights compute."""

    def __init__(self, weights, shape: Published):
        self.w, self.shape = weights, shape

    def _norm(self, name, x):
        parts = (self.w[f"{name}.{part}"] for part in ("running_mean", "running_var"))
        return F.batch_norm(x, *parts, self.w[f"{name}.weight"], self.w[f"{name}.bias"], eps=1e-5)

    def _conv(self, name, x, **settings):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), **settings)

    def _mobile_one(self, name, x, *, padding, stride=1, groups=1):
        at = {"stride": stride, "groups": groups}
        conv = self._conv(f"{name}.rbr_conv.0.conv", x, padding=padding, **at)
        total = self._norm(f"{name}.rbr_conv.0.bn", conv)
        if f"{name}.rbr_scale.conv.weight" in self.w:
            point = self._conv(f"{name}.rbr_scale.conv", x, **at)
            total = total + self._norm(f"{name}.rbr_scale.bn", point)
        if f"{name}.rbr_skip.weight" in self.w:
            total = total + self._norm(f"{name}.rbr_skip", x)
        return total

    def _squeeze(self, reduce, expand, x):
        mean = F.avg_pool2d(x, x.shape[-2:])
        return x * torch.sigmoid(self._conv(expand, F.relu(self._conv(reduce, mean))))

    def _ffn(self, name, x, padding):
        x = self._conv(f"{name}.conv.conv", x, padding=padding, groups=x.shape[1])
        x = F.gelu(self._conv(f"{name}.fc1", self._norm(f"{name}.conv.bn", x)))
        return self._conv(f"{name}.fc2", x)

    def _rep_mixer(self, name, x, padding, ffn_padding):
        mixer = f"{name}.token_mixer"
        mixed = self._mobile_one(f"{mixer}.mixer", x, padding=padding, groups=x.shape[1])
        mixed = mixed - self._norm(f"{mixer}.norm.rbr_skip", x)
        x = x + self.w[f"{mixer}.layer_scale"] * mixed
        return x + self.w[f"{name}.layer_scale"] * self._ffn(f"{name}.convffn", x, ffn_padding)

    def _attend(self, q, k, v):
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2), -1) @ v

    def _attention(self, name, x):
        b, c, h, w = x.shape
        tokens = self._norm(f"{name}.norm", x).flatten(2).transpose(1, 2)
        qkv = F.linear(tokens, self.w[f"{name}.token_mixer.qkv.weight"])
        q, k, v = qkv.reshape(b, h * w, 3, c // 32, 32).permute(2, 0, 3, 1, 4)
        mixed = self._linear(
            f"{name}.token_mixer.proj", self._attend(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        )
        x = x + self.w[f"{name}.layer_scale_1"] * mixed.transpose(1, 2).reshape(b, c, h, w)
        return x + self.w[f"{name}.layer_scale_2"] * self._ffn(f"{name}.convffn", x, 3)

    def _linear(self, name, x):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def image(self, x):
        """Returns features of pixels [n, 3, h, w]."""
        stem = f"{IMAGE}patch_embed"
        x = F.gelu(self._mobile_one(f"{stem}.0", x, padding=1, stride=2))
        x = F.gelu(self._mobile_one(f"{stem}.1", x, padding=1, stride=2, groups=x.shape[1]))
        x = F.gelu(self._mobile_one(f"{stem}.2", x, padding=0))
        place = 0
        for stage, depth in enumerate(self.shape.depths):
            if stage:
                x = self._patch_embedding(f"{IMAGE}network.{place}.proj", x, squeezes=stage >= 2)
                place += 1
            if stage == 3:
                x = x + self._conv(f"{IMAGE}network.{place}.pe", x, padding=3, groups=x.shape[1])
                place += 1
            for number in range(depth):
                name = f"{IMAGE}network.{place}.{number}"
                x = self._attention(name, x) if stage == 3 else self._rep_mixer(name, x, 1, 3)
            place += 1
        last = f"{IMAGE}conv_exp"
        x = self._mobile_one(last, x, padding=1, groups=x.shape[1])
        x = F.gelu(self._squeeze(f"{last}.se.reduce", f"{last}.se.expand", x))
        return x.mean((-2, -1)) @ self.w[f"{IMAGE}head.proj"]

    def _patch_embedding(self, name, x, *, squeezes):
        total = 0
        for branch, padding in (("lkb_origin", 3), ("small_conv", 1)):
            at = {"padding": padding, "stride": 2, "groups": x.shape[1]}
            conv = self._conv(f"{name}.0.{branch}.conv", x, **at)
            total = total + self._norm(f"{name}.0.{branch}.bn", conv)
        if squeezes:
            total = self._squeeze(f"{name}.0.se.fc1", f"{name}.0.se.fc2", total)
        return F.gelu(self._mobile_one(f"{name}.1", F.gelu(total), padding=0))

    def text(self, ids):
        """Returns features of ids [n, context], of which the largest ends a text."""
        x = self.w[f"{TEXT}embedding_layer.weight"][ids]
        x = x + self.w[f"{TEXT}positional_embedding.pos_embed.pos_embed"][0]
        for number in range(self.shape.text_layers + 2 * self.shape.mixes):
            name = f"{TEXT}transformer.{number}"
            if f"{name}.layer_scale" in self.w:
                x = x.transpose(1, 2)[:, :, None]
                x = self._rep_mixer(name, x, (0, 5), (0, 5))[:, :, 0].transpose(1, 2)
            else:
                x = self._layer(name, x)
        x = self._layer_norm(f"{TEXT}final_layer_norm", x)
        return x[torch.arange(len(ids)), ids.argmax(-1)] @ self.w[f"{TEXT}projection_layer"]

    def _layer_norm(self, name, x):
        at = (self.w[f"{name}.weight"], self.w[f"{name}.bias"])
        return F.layer_norm(x, x.shape[-1:], *at, eps=1e-5)

    def _layer(self, name, x):
        b, length, width = x.shape
        normed = self._layer_norm(f"{name}.pre_norm_mha.0", x)
        qkv = self._linear(f"{name}.pre_norm_mha.1.qkv_proj", normed)
        q, k, v = qkv.reshape(b, length, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
        mixed = self._attend(q, k, v).transpose(1, 2).reshape(b, length, width)
        x = x + self._linear(f"{name}.pre_norm_mha.1.out_proj", mixed)
        inner = self._linear(
            f"{name}.pre_norm_ffn.1", self._layer_norm(f"{name}.pre_norm_ffn.0", x)
        )
        return x + self._linear(f"{name}.pre_norm_ffn.4", F.gelu(inner))
