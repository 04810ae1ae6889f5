"""Checkpoints of every kind give what plain transformers gives, with their own processors."""

import io
import json

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from PIL import Image

from openmofi.errors import InputError
from openmofi.label.encoder import model_digest
from openmofi.model import load_model
from openmofi.model.checkpoint import complete_processor_config
from openmofi.model.transform import from_processor_config

KINDS = ["clip", "siglip", "siglip2", "mobilenet", "bert"]
TEXTS = ["red apple", "a green lime on the table", "lime", "the red apple on a table", "apple"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    return {kind: tiny_models.write_model(folder, kind) for kind, folder in made.items()}


def _png(width=45, height=31):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _unit(output):
    return torch.nn.functional.normalize(output.pooler_output, dim=-1).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(45, 31), (30, 47), (16, 16), (9, 12)])
def test_an_image_gets_the_vector_that_plain_transformers_gives(folders, kind, size):
    data = _png(*size)
    name = tiny_models.PROCESSORS[kind]["image_processor_type"] + "Pil"  # without torchvision
    processor = getattr(transformers, name).from_pretrained(folders[kind])
    pixels = processor(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"]
    network = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    with torch.inference_mode():
        expected = _unit(network.get_image_features(pixel_values=pixels))
    model = load_model(folders[kind])
    np.testing.assert_allclose(model.transform([data]), pixels, atol=1e-5)
    np.testing.assert_allclose(model.encode_images([data]), expected, atol=1e-4)
    whole = np.stack([model.transform.pixels(data)])
    np.testing.assert_allclose(model.encode_pixels(whole), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_get_the_vectors_that_plain_transformers_gives(folders, kind):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[kind])
    padding = "max_length" if kind.startswith("siglip") else True
    options = {"padding": padding, "truncation": True, "return_tensors": "pt"}
    inputs = tokenizer(TEXTS, **options)
    names = ["input_ids", "attention_mask"] if kind == "bert" else ["input_ids"]
    network = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    with torch.inference_mode():
        expected = _unit(network.get_text_features(**{name: inputs[name] for name in names}))
    np.testing.assert_allclose(load_model(folders[kind]).encode_texts(TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_a_text(folders, kind):
    model = load_model(folders[kind])
    apart = np.concatenate([model.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(model.encode_texts(TEXTS), apart, atol=1e-5)
    assert np.abs(apart[0] - apart[1]).max() > 0.01  # or anything would pass


def test_only_a_text_tower_that_is_not_causal_gets_a_mask(folders):
    given = {kind: set(load_model(folders[kind]).text_inputs(TEXTS)) for kind in KINDS}
    assert given.pop("bert") == {"input_ids", "attention_mask"}
    assert list(given.values()) == [{"input_ids"}] * 4


@pytest.fixture(params=["clip", "siglip", "bert", "nano"])
def any_model(request, folders, nano_dir):
    return load_model(folders.get(request.param, nano_dir))


@pytest.mark.slow
def test_a_text_alone_is_the_same_to_the_last_bit_in_any_company(any_model, rng):
    texts = [" ".join(rng.choice(tiny_models.WORDS[2:10], size=1 + i % 9)) for i in range(150)]
    expected = any_model.encode_texts_alone(texts)
    order = rng.permutation(150)
    assert np.array_equal(any_model.encode_texts_alone([texts[i] for i in order]), expected[order])
    for i in (0, 70, 149):
        assert np.array_equal(any_model.encode_texts_alone([texts[i]])[0], expected[i])
        assert np.array_equal(any_model.encode_texts_alone(texts[i])[0], expected[i])
    np.testing.assert_allclose(any_model.encode_texts(texts), expected, atol=1e-5)
    assert any_model.encode_texts_alone([]).shape == (0, any_model.dim)


@pytest.mark.parametrize("kind", [*KINDS, "nano"])
def test_bf16_on_a_cpu_stays_close(folders, nano_dir, kind):
    folder, images = folders.get(kind, nano_dir), [_png(), _png(30, 50)]
    full, half = load_model(folder), load_model(folder, precision="bf16")
    for encode in ("encode_texts", "encode_texts_alone"):
        pairs = getattr(full, encode)(TEXTS), getattr(half, encode)(TEXTS)
        assert (1 - (pairs[0] * pairs[1]).sum(1)).max() < 0.02
    pixels = np.stack([full.transform.pixels(image) for image in images])
    cosines = (full.encode_pixels(pixels) * half.encode_pixels(pixels)).sum(1)
    assert cosines.min() > 0.98


# ---- what cannot be used is one sentence ---------------------------------------------------------


def test_a_model_of_any_resolution_is_refused_and_another_named(tmp_path):
    config = transformers.Siglip2Config()
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"NaFlex .* google/siglip2-base-patch16-224"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("kind", "file"), [("SiglipTokenizer", "spiece.model"), ("GemmaTokenizer", "tokenizer.model")]
)
def test_a_tokenizer_without_its_package_names_it(tmp_path, kind, file):
    if transformers.utils.is_sentencepiece_available():
        pytest.skip("sentencepiece is installed here")
    tiny_models.write_model(tmp_path, "siglip")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    (tmp_path / file).write_bytes(b"\n\x0e\n\x05<unk>")
    with pytest.raises(InputError, match="pip install sentencepiece"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("size", "crop"),
    [
        ({"longest_edge": 224}, None),
        ({"shortest_edge": 224, "longest_edge": 448}, None),
        ({"height": 224, "width": 112}, None),
        ({"max_height": 224, "max_width": 224}, None),
        ({"shortest_edge": 224}, {"height": 256, "width": 256}),
    ],
)
def test_processors_that_do_not_end_in_a_square_are_refused(size, crop):
    config = {"size": size, "crop_size": crop, "do_center_crop": crop is not None}
    with pytest.raises(InputError, match=r"resizes to \{|crops 256 pixels out of 224"):
        from_processor_config(config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"size": 20, "crop_size": 16, "do_center_crop": True}, (16, 20, True)),
        ({"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}, (16, 20, True)),
        ({"size": {"height": 20, "width": 20}, "crop_size": 16}, (16, 20, False)),
        ({"size": 16, "default_to_square": True}, (16, 16, False)),
        ({"size": 16, "feature_extractor_type": "ViTFeatureExtractor"}, (16, 16, False)),
        ({"size": 256, "feature_extractor_type": "CLIPFeatureExtractor"}, (224, 256, True)),
        ({}, (224, 224, True)),
    ],
)
def test_old_and_short_configurations_are_understood(config, expected):
    transform = from_processor_config(complete_processor_config(config))
    assert (transform.size, transform.resized_side, transform.keep_aspect) == expected


def test_a_model_digest_follows_its_files(folders, tmp_path):
    before = model_digest(str(folders["clip"]))
    assert before == model_digest(str(tiny_models.write_model(tmp_path, "clip")))
    (tmp_path / "preprocessor_config.json").write_text("{}")
    assert before != model_digest(str(tmp_path))
