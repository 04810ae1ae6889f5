"""MobileCLIP's presets: published sizes, published steps, merged networks, saved folders."""

import json

import pytest
import torch
from mobileclip_published import Published, Steps, write
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import AutoModel

from openmofi.errors import InputError, SettingsError
from openmofi.model import MofiModel, load_model, save_model
from openmofi.model.mobileclip_release import network_of
from openmofi.model.mobileone import has_branches, merge_branches
from openmofi.model.presets import (
    MOBILE_PRESETS,
    SpecialTokens,
    build_network,
    preset_transform,
)
from openmofi.model.tokenizer import special_tokens, train_tokenizer

CLIP = SpecialTokens(vocab_size=49408, bos=49406, eos=49407, pad=0)
TEXTS = ["a red apple", "a green lime on the table, and a bus", "lime"]


def _millions(module):
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


@pytest.mark.parametrize(
    ("preset", "image", "text"), [("s0", 11.4, 42.4), ("s1", 21.5, 63.4), ("s2", 35.7, 63.4)]
)
def test_the_published_sizes_are_those_of_merged_networks(preset, image, text):
    with torch.device("meta"):
        network = build_network(preset, CLIP, image_size=256)
        network.vision_model.config.branches = False
        merged = type(network.vision_model)(network.vision_model.config)
    assert _millions(network.text_model) == pytest.approx(text, abs=0.05)
    # What is published leaves in a block the scale of its feed-forward part and the four numbers
    # per channel of that part's batch norm, of which two are parameters, where ours has one bias;
    # and a block that attends has two scales.
    shape = MOBILE_PRESETS[preset]
    left = sum(depth * width * 2 for depth, width in zip(shape.depths, shape.widths, strict=True))
    left += shape.depths[-1] * shape.widths[-1]
    published = _millions(merged) + left / 1e6
    assert round(published, 1) == image
    assert _millions(merged) < published < _millions(network.vision_model) + left / 1e6


@pytest.mark.parametrize("mixes", [True, False])
def test_both_towers_compute_what_is_published(mixes):
    shape = Published(mixes=mixes)
    weights = write(shape)
    network, steps = network_of(weights, "tiny").eval(), Steps(weights, shape)
    pixels = torch.rand(3, 3, 64, 64)
    ids = torch.randint(1, shape.vocab - 1, (3, shape.context))
    for row, end in enumerate((4, 20, shape.context - 1)):
        ids[row, end], ids[row, end + 1 :] = shape.vocab - 1, 0
    with torch.no_grad():
        for found in (network, merge_branches(network)):
            image, text = found.get_image_features(pixels), found.get_text_features(ids)
            for one, other in ((image, steps.image(pixels)), (text, steps.text(ids))):
                torch.testing.assert_close(_unit(one), _unit(other), atol=1e-5, rtol=0)


def _unit(x):
    return F.normalize(x, dim=-1)


def test_merging_leaves_the_network_as_it_is_and_no_branch():
    network = network_of(write(Published()), "tiny").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    merged = merge_branches(network)
    assert not has_branches(merged)
    assert not merged.config.vision_config.branches
    assert not merged.config.text_config.branches
    assert network.config.vision_config.branches
    assert all(torch.equal(before[name], now) for name, now in network.state_dict().items())


def test_padding_and_its_id_do_not_matter_to_a_text():
    network = network_of(write(Published()), "tiny").eval()
    short = torch.tensor([[5, 9, 299]])
    long = torch.full((1, 77), 7)
    long[0, :3] = short
    with torch.no_grad():
        one, other = network.get_text_features(short), network.get_text_features(long)
    assert torch.equal(one, other)


@pytest.fixture(scope="module")
def small():
    """A model of preset s0 with the statistics of a few batches."""
    torch.manual_seed(3)
    words = train_tokenizer(TEXTS * 4, vocab_size=300, context_length=77)
    network = build_network("s0", special_tokens(words), image_size=64)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network.get_image_features(torch.rand(4, 3, 64, 64))
            network.get_text_features(torch.randint(0, 250, (4, 77)))
        for name, parameter in network.named_parameters():
            if name.endswith(".scale"):
                parameter.uniform_(-1, 1)
            elif name.endswith("norm.bias"):
                parameter.normal_()
    return MofiModel(network, words, preset_transform("s0", image_size=64), "cpu")


def test_a_saved_model_is_merged_and_encodes_the_same(small, tmp_path):
    save_model(small, tmp_path, card="")
    assert has_branches(small.network)
    loaded = load_model(tmp_path, device="cpu")
    assert not has_branches(loaded.network)
    assert loaded.transform == small.transform
    images = (torch.rand(5, 8, 8, 3) * 255).to(torch.uint8).repeat(1, 8, 8, 1).numpy()
    images[:3] = images[:3, :1, :1]  # of one colour
    for one, other in (
        (small.encode_pixels(images), loaded.encode_pixels(images)),
        (small.encode_texts(TEXTS), loaded.encode_texts(TEXTS)),
    ):
        assert abs(one - other).max() < 1e-5
        assert abs(one[0] - one[1]).max() > 1e-4


def test_a_saved_folder_is_one_of_hugging_face(small, tmp_path):
    save_model(small, tmp_path, card="")
    network, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert network.config.vision_config.model_type == "mobileclip_image"
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert config["image_mean"] == [0, 0, 0]
    assert config["image_std"] == [1, 1, 1]
    assert config["size"] == {"shortest_edge": 64}


def test_a_folder_that_lacks_a_weight_is_refused(small, tmp_path):
    save_model(small, tmp_path, card="")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["text_model.norm.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks weights .* such as text_model\.norm\.bias"):
        load_model(tmp_path, device="cpu")


def test_weights_given_in_place_of_its_own_are_merged(small, tmp_path):
    weights = {name: value.clone() for name, value in small.network.state_dict().items()}
    weights["vision_model.stem.0.conv.full.norm.bias"] += 1
    save_model(small, tmp_path / "own", card="")
    save_model(small, tmp_path / "given", card="", weights=weights)
    own, given = (load_model(tmp_path / name).network.state_dict() for name in ("own", "given"))
    changed = {name for name in own if not torch.equal(own[name], given[name])}
    assert changed == {"vision_model.stem.0.conv.bias"}


def test_an_unknown_preset_is_told_the_known_ones():
    with pytest.raises(SettingsError, match=r"nano, b16, l14, h14, s0, s1, s2"):
        build_network("s3", CLIP, image_size=64)
