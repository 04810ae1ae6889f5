"""Convolutions that are a sum of branches in training and one convolution in use.

Structural reparameterisation (RepVGG, arXiv 2101.03697): branches without an activation between
them are linear once their batch norms stand still, so their sum is one convolution with a bias. The
blocks are MobileOne's (arXiv 2206.04040), RepLKNet's (2203.06717) and FastViT's (2303.14189), as
MobileCLIP (2311.17049) combines them.

A `Branched` module stands where the convolution will: `merge_branches` puts it there.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

_LAYER_SCALE = 1e-5


class ConvShape(NamedTuple):
    """What a convolution is built from; it pads by half its kernel."""

    wide: int
    out: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    groups: int = 1

    def build(self, *, bias: bool) -> nn.Conv2d:
        """Returns the convolution with random weights."""
        padding = (self.kernel[0] // 2, self.kernel[1] // 2)
        return nn.Conv2d(
            self.wide, self.out, self.kernel, self.stride, padding, groups=self.groups, bias=bias
        )


class Branched(nn.Module):
    """What will be one convolution."""

    def __init__(self, shape: ConvShape):
        super().__init__()
        self.shape = shape

    def kernel_and_bias(self) -> tuple[Float[Tensor, "out in h w"], Float[Tensor, " out"]]:
        """Returns those of the one convolution, under the running statistics."""
        raise NotImplementedError

    def merged(self) -> nn.Conv2d:
        """Returns the one convolution."""
        with torch.device("meta"):
            layer = self.shape.build(bias=True)
        kernel, bias = self.kernel_and_bias()
        layer.weight, layer.bias = nn.Parameter(kernel.detach()), nn.Parameter(bias.detach())
        return layer


class ConvNorm(Branched):
    """A convolution without a bias, then batch norm."""

    def __init__(self, shape: ConvShape):
        super().__init__(shape)
        self.conv = shape.build(bias=False)
        self.norm = nn.BatchNorm2d(shape.out)

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Returns the normalised result."""
        return self.norm(self.conv(x))

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        return _under_norm(self.conv.weight, self.norm)


class MobileOneBranches(Branched):
    """A convolution, a 1x1 one and the input, each with a batch norm, added up.

    The input is added where shapes agree. Kernels one pixel high have no 1x1 branch (the published
    text tower's), nor need 1x1 ones it.
    """

    def __init__(self, shape: ConvShape, *, point: bool = True):
        super().__init__(shape)
        self.full = ConvNorm(shape)
        self.point = self.skip = None
        if point and shape.kernel[0] > 1:
            # Of every other place; with a stride of its own, oneDNN's gradient of the first layer
            # writes beyond its memory (torch 2.13 on a CPU, 3 channels of 256 x 256).
            self.point = ConvNorm(shape._replace(kernel=(1, 1), stride=1))
        if shape.wide == shape.out and shape.stride == 1:
            self.skip = nn.BatchNorm2d(shape.wide)

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Returns the sum."""
        total = self.full(x)
        if self.point is not None:
            total = total + self.point(x[:, :, :: self.shape.stride, :: self.shape.stride])
        return total if self.skip is None else total + self.skip(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        kernel, bias = self.full.kernel_and_bias()
        if self.point is not None:
            point, shift = self.point.kernel_and_bias()
            kernel, bias = kernel + _padded(point, self.shape), bias + shift
        if self.skip is not None:
            skip, shift = _under_norm(_identity(self.shape, kernel), self.skip)
            kernel, bias = kernel + skip, bias + shift
        return kernel, bias


class RepMixer(Branched):
    """x + s (mixer(x) - norm(x)): mixes each channel over places; s is the layer scale."""

    def __init__(self, shape: ConvShape):
        super().__init__(shape)
        self.mixer = MobileOneBranches(shape)
        self.norm = nn.BatchNorm2d(shape.wide)
        self.scale = nn.Parameter(torch.full((shape.wide,), _LAYER_SCALE))

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns the mixed channels."""
        return x + self.scale[:, None, None] * (self.mixer(x) - self.norm(x))

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        kernel, bias = self.mixer.kernel_and_bias()
        same = _identity(self.shape, kernel)
        norm, shift = _under_norm(same, self.norm)
        return same + self.scale[:, None, None, None] * (kernel - norm), self.scale * (bias - shift)


class LargeKernel(Branched):
    """A large kernel and a 3x3 one beside it, each with a batch norm."""

    def __init__(self, shape: ConvShape):
        super().__init__(shape)
        self.large = ConvNorm(shape)
        self.small = ConvNorm(shape._replace(kernel=(3, 3)))

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Returns the sum."""
        return self.large(x) + self.small(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        (large, bias), (small, shift) = self.large.kernel_and_bias(), self.small.kernel_and_bias()
        return large + _padded(small, self.shape), bias + shift


class PositionConv(Branched):
    """A depthwise convolution added to its input, which tells places apart (arXiv 2102.10882)."""

    def __init__(self, shape: ConvShape):
        super().__init__(shape)
        self.conv = shape.build(bias=True)

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns the sum."""
        return x + self.conv(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        assert self.conv.bias is not None
        return self.conv.weight + _identity(self.shape, self.conv.weight), self.conv.bias


class ScaledConv(Branched):
    """A convolution with a bias, then a layer scale."""

    def __init__(self, shape: ConvShape):
        super().__init__(shape)
        self.conv = shape.build(bias=True)
        self.scale = nn.Parameter(torch.full((shape.out,), _LAYER_SCALE))

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h w"]:
        """Returns the scaled result."""
        return self.scale[:, None, None] * self.conv(x)

    def kernel_and_bias(self) -> tuple[Tensor, Tensor]:
        """See `Branched`."""
        assert self.conv.bias is not None
        return self.conv.weight * self.scale[:, None, None, None], self.conv.bias * self.scale


class SqueezeExcite(nn.Module):
    """Weighs each channel by what all of them show on average (arXiv 1709.01507)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns the weighed channels."""
        inner = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(inner))


class MobileOneBlock(nn.Module):
    """One convolution in use, then squeeze-excite where asked for, then GELU."""

    def __init__(
        self, shape: ConvShape, *, branches: bool, point: bool = True, squeeze: int | None = None
    ):
        super().__init__()
        own = MobileOneBranches(shape, point=point) if branches else shape.build(bias=True)
        self.conv: nn.Module = own
        self.squeeze = None if squeeze is None else SqueezeExcite(shape.out, shape.out // squeeze)

    def forward(self, x: Float[Tensor, "b wide h w"]) -> Float[Tensor, "b out h2 w2"]:
        """Returns the block's features."""
        x = self.conv(x)
        return F.gelu(x if self.squeeze is None else self.squeeze(x))


class ConvFeedForward(nn.Module):
    """A depthwise convolution, then a 1x1 one to more channels and one back, scaled."""

    def __init__(self, width: int, *, kernel: tuple[int, int], ratio: int, branches: bool):
        super().__init__()
        self.depthwise = build(ConvNorm, ConvShape(width, width, kernel, groups=width), branches)
        self.widen = ConvShape(width, ratio * width).build(bias=True)
        self.narrow = build(ScaledConv, ConvShape(ratio * width, width), branches)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns what the block adds."""
        return self.narrow(F.gelu(self.widen(self.depthwise(x))))


class RepMixerBlock(nn.Module):
    """Mixes places, then channels."""

    def __init__(
        self,
        width: int,
        *,
        kernel: tuple[int, int],
        ffn_kernel: tuple[int, int],
        ratio: int,
        branches: bool,
    ):
        super().__init__()
        self.mixer = build(RepMixer, ConvShape(width, width, kernel, groups=width), branches)
        self.ffn = ConvFeedForward(width, kernel=ffn_kernel, ratio=ratio, branches=branches)

    def forward(self, x: Float[Tensor, "b D h w"]) -> Float[Tensor, "b D h w"]:
        """Returns the block's features."""
        x = self.mixer(x)
        return x + self.ffn(x)


def build(kind: type[Branched], shape: ConvShape, branches: bool) -> nn.Module:
    """Returns a module with branches, or the convolution that it becomes."""
    return kind(shape) if branches else shape.build(bias=True)


def has_branches(network: nn.Module) -> bool:
    """Says whether some convolution of a network is still a sum of branches."""
    return any(isinstance(module, Branched) for module in network.modules())


def merge_branches(network: Any, weights: dict[str, Tensor] | None = None) -> Any:
    """Returns a dual encoder like the given one in which every `Branched` is one convolution.

    Args:
        network: the network, which stays as it is; on a CPU, the other weights are shared with it.
        weights: name -> tensor, in place of its own (which may be spread over processes).
    """
    with torch.device("meta"):
        copied = type(network)(copy.deepcopy(network.config))
    state = network.state_dict() if weights is None else weights
    copied.load_state_dict({n: t.detach().cpu() for n, t in state.items()}, assign=True)
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Branched) and not isinstance(parent, Branched):
                setattr(parent, name, child.merged())
    for config in (copied.config, copied.config.vision_config, copied.config.text_config):
        if hasattr(config, "branches"):
            config.branches = False
    return copied.eval()


def _under_norm(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns kernel and bias of a convolution followed by a batch norm."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * factor[:, None, None, None], norm.bias - norm.running_mean * factor


def _identity(shape: ConvShape, like: Tensor) -> Tensor:
    """Returns the kernel that changes nothing."""
    (height, width), inner = shape.kernel, shape.wide // shape.groups
    kernel = torch.zeros(shape.out, inner, height, width, dtype=like.dtype, device=like.device)
    channels = torch.arange(shape.out, device=like.device)
    kernel[channels, channels % inner, height // 2, width // 2] = 1
    return kernel


def _padded(kernel: Tensor, shape: ConvShape) -> Tensor:
    """Returns a small kernel in the middle of one of the shape's size."""
    height, width = (
        (full - own) // 2 for full, own in zip(shape.kernel, kernel.shape[2:], strict=True)
    )
    return F.pad(kernel, (width, width, height, height))
