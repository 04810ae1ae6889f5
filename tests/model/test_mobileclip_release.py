"""Released MobileCLIP checkpoints: both namings, files, folders and hub ids, and what is no one."""

import json
import re

import pytest
import torch
from mobileclip_published import IMAGE, TEXT, Published, Steps, write
from safetensors.torch import save_file
from torch.nn import functional as F

from openmofi.errors import InputError
from openmofi.model import load_model, load_text_encoder, mobileclip_release
from openmofi.model.checkpoint import hub_revision
from openmofi.model.mobileclip_image import MobileClipImageConfig
from openmofi.model.mobileclip_release import image_config, network_of, text_config
from openmofi.model.mobileclip_text import MobileClipTextConfig
from openmofi.model.mobileone import has_branches
from openmofi.model.presets import dual_of_towers
from openmofi.model.tokenizer import train_tokenizer
from openmofi.model.transform import OPENAI_MEAN

TEXTS = ["a red apple", "lime", "a green lime on the table"]
MCI3 = {"depths": [2, 12, 24, 4, 2], "widths": [96, 192, 384, 768, 1536], "ratio": 4}
MCI3 |= {"attending": 2, "squeezed": 0, "layer_norm": True, "stem_points": False}
NO_MEAN = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"}


@pytest.fixture(scope="module")
def words():
    return train_tokenizer(TEXTS * 4, vocab_size=300, context_length=77)


@pytest.fixture(scope="module")
def shape(words):
    return Published(vocab=len(words))


def _open_clip_names(weights):
    """Renames Apple's parameters as timm 1.0 and open_clip 3.3 name them."""
    words = {"rbr_conv": "conv_kxk", "rbr_scale": "conv_scale", "rbr_skip": "identity"}
    words |= {"patch_embed": "stem", "conv_exp": "final_conv", "lkb_origin": "large_conv"}
    words |= {"convffn": "mlp", "se.reduce": "se.fc1", "se.expand": "se.fc2"}
    texts = {"embedding_layer": "token_embedding", "final_layer_norm": "ln_final"}
    texts |= {"pre_norm_mha.0": "ln_1", "pre_norm_mha.1.qkv_proj.": "attn.in_proj_"}
    texts |= {"pre_norm_mha.1.out_proj": "attn.out_proj", "pre_norm_ffn.0": "ln_2"}
    texts |= {"pre_norm_ffn.1": "mlp.c_fc", "pre_norm_ffn.4": "mlp.c_proj"}
    texts |= {"projection_layer": "text_projection", "transformer.": "transformer.resblocks."}
    texts |= {"positional_embedding.pos_embed.pos_embed": "positional_embedding"}
    stages = ("0.", "1.proj.", "2.", "3.proj.", "4.", "5.proj.", "6.pe.", "7.")
    places = ("0.blocks.", "1.downsample.proj.", "1.blocks.", "2.downsample.proj.", "2.blocks.")
    places += ("3.downsample.proj.", "3.pos_emb.pos_enc.", "3.blocks.")
    network = {f"network.{s}": f"stages.{p}" for s, p in zip(stages, places, strict=True)}
    renamed = {}
    for name, value in weights.items():
        new = name
        for old, other in (texts if name.startswith(TEXT) else network | words).items():
            new = new.replace(old, other)
        new = re.sub(r"(layer_scale(_\d)?)$", r"\1.gamma", new)
        new = new.replace(IMAGE, "visual.trunk.").replace(TEXT, "text.")
        if new.endswith("head.proj"):
            renamed["visual.trunk.head.fc.weight"] = value.T.contiguous()
            renamed["visual.trunk.head.fc.bias"] = 0.1 * torch.ones(value.shape[1])
            continue
        renamed[new] = value.squeeze() if new.endswith("positional_embedding") else value
    return renamed


def _unit(x):
    return F.normalize(torch.as_tensor(x), dim=-1)


def _assert_computes(model, weights, shape, *, bias=0.0, atol=1e-5):
    pixels = torch.rand(2, 3, 64, 64)
    ids = torch.zeros(len(TEXTS), 77, dtype=torch.long)  # CLIP's padding
    for row, found in enumerate(model.tokenizer(TEXTS)["input_ids"]):
        ids[row, : len(found)] = torch.tensor(found)
    steps = Steps(weights, shape)
    with torch.no_grad():
        image = model.image_features(pixels)
        torch.testing.assert_close(
            _unit(image), _unit(steps.image(pixels) + bias), atol=atol, rtol=0
        )
        expected = _unit(steps.text(ids))
    torch.testing.assert_close(_unit(model.encode_texts(TEXTS)), expected, atol=atol, rtol=0)


def test_a_file_of_apples_naming_computes_what_is_published(tmp_path, words, shape):
    weights = write(shape)
    words.save_pretrained(tmp_path)
    torch.save(weights, tmp_path / "any name.pt")
    model = load_model(tmp_path / "any name.pt", device="cpu")
    _assert_computes(model, weights, shape)
    assert not has_branches(model.network)
    assert model.logit_scale.item() == pytest.approx(4.6)
    assert (model.transform.size, model.transform.resample) == (256, 2)
    assert (model.transform.mean, model.transform.std) == ((0, 0, 0), (1, 1, 1))
    training = load_model(tmp_path / "any name.pt", device="cpu", to_train=True)
    assert has_branches(training.network)
    assert all(p.requires_grad and p.is_leaf for p in training.network.parameters())
    _assert_computes(training, weights, shape)


@pytest.mark.parametrize("mixes", [True, False])
def test_a_folder_of_open_clips_naming_too_and_its_projection_has_a_bias(tmp_path, words, mixes):
    shape = Published(vocab=len(words), mixes=mixes)
    weights = write(shape)
    words.save_pretrained(tmp_path)
    state = {f"module.{name}": value for name, value in _open_clip_names(weights).items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "mobileclip2_s0.pt")
    _assert_computes(load_model(tmp_path, device="cpu"), weights, shape, bias=0.1)
    assert load_text_encoder(tmp_path, device="cpu").reads_texts


def test_an_open_clip_folder_says_how_images_enter(tmp_path, words, shape):
    weights = write(shape)
    words.save_pretrained(tmp_path)
    save_file(_open_clip_names(weights), tmp_path / "open_clip_model.safetensors")
    vision = {"timm_model_name": "fastvit_mci0", "image_size": 96}
    config = {"model_cfg": {"vision_cfg": vision}, "preprocess_cfg": NO_MEAN}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    model = load_model(tmp_path, device="cpu")
    assert (model.transform.size, model.transform.mean) == (96, (0, 0, 0))
    _assert_computes(model, weights, shape, bias=0.1)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("apple/MobileCLIP-S0", ["mobileclip_s0.pt"]),
        ("apple/MobileCLIP2-S4", ["mobileclip2_s4.pt"]),
        ("timm/MobileCLIP2-S2-OpenCLIP", ["open_clip_config.json", "open_clip_model.safetensors"]),
    ],
)
def test_ids_of_the_hub_name_its_files(tmp_path, words, shape, monkeypatch, name, files):
    words.save_pretrained(tmp_path)
    weights = write(shape)
    torch.save(weights, tmp_path / files[-1])
    if files[-1].endswith("safetensors"):
        save_file(_open_clip_names(weights), tmp_path / files[-1])
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"preprocess_cfg": NO_MEAN}))
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_model(name, device="cpu").reads_texts
    assert asked == [(name, file) for file in files]
    assert hub_revision(name) == tmp_path.name  # .../snapshots/<commit>


def test_without_its_tokenizer_or_the_hub_one_sentence_says_what_to_do(
    tmp_path, shape, monkeypatch
):
    monkeypatch.setattr(mobileclip_release, "TOKENIZER", str(tmp_path / "nowhere"))
    torch.save(write(shape), tmp_path / "mobileclip_s0.pt")
    with pytest.raises(InputError, match=r"put tokenizer\.json .* beside the weights"):
        load_model(tmp_path / "mobileclip_s0.pt")


class _Code:
    def __reduce__(self):
        return print, ("run",)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"image_encoder.x": _Code()}, tmp_path / "mobileclip_s0.pt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(tmp_path / "mobileclip_s0.pt")
    assert "run" not in capsys.readouterr().out


def _without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: _without(w, "image_encoder.model.conv_exp.se.reduce.weight"), "squeeze.reduce"),
        (lambda w: w | {"image_encoder.model.head.extra": torch.ones(1)}, "head.extra"),
        (
            lambda w: {"image_encoder.model.trunk.cls_token": torch.ones(1)},
            "MobileCLIP-B and -L-14",
        ),
        (lambda w: [1, 2], "holds a list"),
        (lambda w: w | {"image_encoder.model.head.proj": torch.ones(7, 24)}, "size mismatch"),
    ],
)
def test_other_weights_are_refused_in_one_sentence(tmp_path, shape, change, said):
    torch.save(change(write(shape)), tmp_path / "mobileclip_b.pt")
    with pytest.raises(InputError, match=re.escape(said)) as error:
        load_model(tmp_path / "mobileclip_b.pt")
    assert "\n" not in str(error.value)


def test_missing_damaged_and_doubtful_files_are_named(tmp_path, shape):
    with pytest.raises(InputError, match=r"There is no file 'gone\.pt'"):
        load_model("gone.pt")
    torch.save(write(shape), tmp_path / "mobileclip_s0.pt")
    whole = (tmp_path / "mobileclip_s0.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_model(tmp_path / "cut.pt")
    (tmp_path / "mobileclip_s1.pt").write_bytes(whole)
    with pytest.raises(InputError, match="has 2 files"):
        load_model(tmp_path)


@pytest.mark.parametrize("image", [{}, MCI3, {"depths": [4, 12, 24, 4], "projection_bias": True}])
@pytest.mark.parametrize("text", [{}, {"layers": 12, "mixes": False}, {"width": 768, "heads": 12}])
def test_the_configuration_is_read_off_the_weights(image, text):
    asked = MobileClipImageConfig(**image), MobileClipTextConfig(**text)
    with torch.device("meta"):
        weights = dual_of_towers(*asked).state_dict()
    for expected, found in zip(asked, (image_config(weights), text_config(weights)), strict=True):
        expected, found = expected.to_dict(), found.to_dict()
        assert {n: v for n, v in found.items() if v != expected[n]} == {}


def test_images_of_s3_and_s4_enter_as_openais():
    image = MobileClipImageConfig(depths=[1, 1], widths=[32, 64], layer_norm=True, attending=1)
    assert mobileclip_release._transform_of(image).mean == OPENAI_MEAN


def test_weights_in_half_precision_are_read_in_full(shape):
    weights = {n: v.half() if v.is_floating_point() else v for n, v in write(shape).items()}
    assert all(p.dtype == torch.float32 for p in network_of(weights, "half").parameters())
