"""Processors of image encoders: our pixels are those of transformers' own classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from openmofi.model.checkpoint import complete_processor_config
from openmofi.model.transform import from_processor_config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(300, 200), (180, 260), (224, 224)])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("ViTImageProcessor", {}),
        ("BitImageProcessor", {"size": {"shortest_edge": 256}}),  # DINOv2's
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 224}, "crop_pct": 0.95}),
        ("EfficientNetImageProcessor", {"resample": 3}),
        ("SiglipImageProcessor", {}),
        ("DeiTImageProcessor", {}),
    ],
)
def test_an_image_encoders_pixels_are_those_of_its_own_processor(kind, changes, size):
    import transformers

    own = getattr(transformers, f"{kind}Pil")(**changes)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = own(image, return_tensors="pt")["pixel_values"]
    config = {"image_processor_type": kind, **changes}
    transform = from_processor_config(complete_processor_config(config))
    found = transform([image])
    assert found.shape == expected.shape
    assert (found - expected).abs().mean() < 0.02  # a level of 255 is .008 to .02
    torch.testing.assert_close(found, expected, atol=0.15, rtol=0)
