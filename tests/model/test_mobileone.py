"""Branches that become one convolution: every kind, with norms and scales far from fresh ones."""

import pytest
import torch
from torch import nn

from openmofi.model.mobileone import (
    ConvFeedForward,
    ConvNorm,
    ConvShape,
    LargeKernel,
    MobileOneBranches,
    PositionConv,
    RepMixer,
    ScaledConv,
    has_branches,
)

KINDS = {
    "conv_norm": (ConvNorm, ConvShape(6, 6, (7, 7), groups=6)),
    "mobile_one_first": (MobileOneBranches, ConvShape(3, 6, (3, 3), 2)),
    "mobile_one_depthwise": (MobileOneBranches, ConvShape(6, 6, (3, 3), groups=6)),
    "mobile_one_widening": (MobileOneBranches, ConvShape(6, 12, (3, 3), groups=6)),
    "mobile_one_1x1": (MobileOneBranches, ConvShape(6, 6)),
    "mobile_one_of_texts": (MobileOneBranches, ConvShape(6, 6, (1, 11), groups=6)),
    "rep_mixer": (RepMixer, ConvShape(6, 6, (3, 3), groups=6)),
    "rep_mixer_of_texts": (RepMixer, ConvShape(6, 6, (1, 11), groups=6)),
    "large_kernel": (LargeKernel, ConvShape(6, 12, (7, 7), 2, groups=6)),
    "position": (PositionConv, ConvShape(6, 6, (7, 7), groups=6)),
    "scaled": (ScaledConv, ConvShape(6, 12)),
}


def _trained(module):
    """Gives a module statistics and scales as training leaves them."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.2, 3)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:
            parameter.data.uniform_(-1.5, 1.5)
        assert parameter.abs().max() > 0.1, name
    return module.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [8, 9])
def test_one_convolution_equals_its_branches(kind, side):
    block, shape = KINDS[kind]
    branched = _trained(block(shape))
    x = torch.randn(2, shape.wide, side, side)
    with torch.no_grad():
        expected, found = branched(x), branched.merged()(x)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_branch_less_or_a_wrong_statistic_would_be_noticed():
    branched = _trained(MobileOneBranches(ConvShape(6, 6, (3, 3), groups=6)))
    x, merged = torch.randn(2, 6, 8, 8), branched.merged()
    branched.skip.running_mean += 0.01
    with torch.no_grad():
        assert (merged(x) - branched(x)).abs().max() > 1e-3


def test_texts_have_no_1x1_branch_and_widening_no_skip():
    assert MobileOneBranches(KINDS["mobile_one_of_texts"][1]).point is None
    assert MobileOneBranches(KINDS["mobile_one_widening"][1]).skip is None
    assert MobileOneBranches(KINDS["mobile_one_first"][1]).skip is None


def test_without_branches_a_block_is_plain_convolutions():
    settings = {"kernel": (7, 7), "ratio": 3}
    branched = ConvFeedForward(6, **settings, branches=True)
    plain = ConvFeedForward(6, **settings, branches=False)
    assert has_branches(branched)
    assert not has_branches(plain)
    for name in ("depthwise", "narrow"):
        expected, found = getattr(plain, name), getattr(branched, name).merged()
        assert repr(found) == repr(expected)


def test_the_first_layer_has_a_gradient_at_full_size():
    # A 1x1 convolution of stride 2 over three channels made the process crash here.
    block = MobileOneBranches(ConvShape(3, 64, (3, 3), 2)).to(memory_format=torch.channels_last)
    block(torch.rand(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert block.point.conv.weight.grad.abs().sum() > 0
