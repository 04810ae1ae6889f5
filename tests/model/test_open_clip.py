"""open_clip's checkpoints: names, preprocessing, refusals; and, where it is installed, vectors."""

import importlib.util
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from openmofi.errors import InputError
from openmofi.model import load_model
from openmofi.model.checkpoint import hub_revision
from openmofi.model.open_clip import is_open_clip, parse_name, transform_of

NAMES = [
    ("open_clip:ViT-B-32/laion2b_s34b_b79k", ("ViT-B-32", "laion2b_s34b_b79k")),
    ("open_clip:ViT-B/32/openai", ("ViT-B/32", "openai")),
    ("open_clip:hf-hub:laion/CLIP-ViT-B-32", ("hf-hub:laion/CLIP-ViT-B-32", None)),
    ("some/folder", ("local-dir:some/folder", None)),
]
SQUASH = {"size": [24, 24], "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
SQUASH |= {"resize_mode": "squash"}


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_names_are_open_clips_own(name, expected):
    assert parse_name(name) == expected


@pytest.mark.parametrize(
    "name", ["", "ViT-B-32", "/openai", "ViT-B-32/", "hf-hub:x", "/some/folder", "./a/b"]
)
def test_another_name_is_refused_with_examples(name):
    with pytest.raises(InputError, match="laion2b_s34b_b79k, open_clip:hf-hub:OWNER"):
        load_model(f"open_clip:{name}")


def test_a_directory_is_open_clips_if_it_has_no_other_configuration(tmp_path):
    assert not is_open_clip(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert is_open_clip(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert not is_open_clip(str(tmp_path))


def test_preprocessing_follows_the_configuration():
    transform = transform_of(SQUASH)
    assert (transform.size, transform.resample, transform.keep_aspect) == (24, 2, False)
    assert (transform.mean, transform.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (transform_of({}).size, transform_of({}).keep_aspect) == (224, True)


@pytest.mark.parametrize("config", [{"resize_mode": "longest"}, {"size": [224, 112]}])
def test_images_that_are_padded_or_no_squares_are_refused(config):
    with pytest.raises(InputError, match="expected a square by 'shortest' or 'squash'"):
        transform_of(config)


def _importable() -> str:
    """Returns why open_clip cannot be imported, or nothing."""
    try:
        importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:
        return str(error) or "it is not installed"
    return ""


@pytest.mark.skipif(
    importlib.util.find_spec("open_clip") is not None, reason="open_clip is installed here"
)
@pytest.mark.parametrize("load", [load_model, hub_revision])
def test_without_the_package_its_extra_is_named(load):
    with pytest.raises(InputError, match=r"pip install 'openmofi\[open_clip\]'"):
        load("open_clip:ViT-B-32/openai")


# ---- with the package ----------------------------------------------------------------------------

TOWERS = {
    "vision_cfg": {"image_size": 24, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
CENTRE = {"mean": [0.4] * 3, "std": [0.3] * 3, "interpolation": "bicubic"}
TEXTS = ["a red apple", "one apple", "lime on a table beside another lime", ""]


@pytest.fixture(params=[CENTRE | {"resize_mode": "shortest"}, SQUASH], ids=["shortest", "squash"])
def folder(request, tmp_path):
    """A tiny model as open_clip stores it."""
    if why := _importable():
        pytest.skip(f"open_clip cannot be imported: {why}")
    import open_clip

    config = {"model_cfg": {"embed_dim": 16, **TOWERS}, "preprocess_cfg": request.param}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = open_clip.create_model(f"local-dir:{tmp_path}")
    torch.save(network.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    return tmp_path


def _images():
    rng = np.random.default_rng(0)
    for size in ((45, 31, 3), (30, 47, 3), (24, 24, 3), (11, 60, 3)):
        yield Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8))


def _png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_vectors_are_those_of_open_clip(folder):
    import open_clip

    network, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
    pixels = torch.stack([prepare(photo) for photo in _images()])
    with torch.inference_mode():
        images = network.eval().encode_image(pixels, normalize=True).numpy()
        texts = network.encode_text(tokenize(TEXTS), normalize=True).numpy()
    model, pngs = load_model(folder), [_png(photo) for photo in _images()]
    assert (model.dim, model.context_length) == (16, 20)
    np.testing.assert_allclose(model.transform(pngs), pixels, atol=1e-6)
    np.testing.assert_allclose(model.encode_images(pngs), images, atol=1e-5)
    own = np.stack([model.transform.pixels(png) for png in pngs])
    np.testing.assert_allclose(model.encode_pixels(own), images, atol=1e-5)
    np.testing.assert_allclose(model.encode_texts(TEXTS), texts, atol=1e-5)
    assert torch.equal(model.logit_scale, network.logit_scale)


def test_a_text_alone_does_not_depend_on_its_company(folder):
    model = load_model(folder)
    together = model.encode_texts_alone(TEXTS)
    assert np.array_equal(model.encode_texts_alone(TEXTS[::-1]), together[::-1])
    assert np.array_equal(model.encode_texts_alone(TEXTS[2:3]), together[2:3])
    np.testing.assert_allclose(model.encode_texts(TEXTS), together, atol=1e-5)


def test_missing_weights_and_unknown_names_are_one_sentence(folder):
    (folder / "open_clip_pytorch_model.bin").unlink()
    for name in (str(folder), "open_clip:ViT-B-32/nonsense", "open_clip:nonsense/openai"):
        with pytest.raises(InputError, match="Cannot load a model from") as caught:
            load_model(name)
        assert "\n" not in str(caught.value)


def test_a_pretrained_tag_has_a_digest_of_its_own(folder):
    names = ["open_clip:ViT-B-32/openai", "open_clip:ViT-B-32/laion2b_s34b_b79k"]
    first, second = map(hub_revision, names)
    assert first != second
    assert hub_revision(names[0]) == first


def test_what_transformers_could_not_load_is_not_saved(folder, tmp_path):
    with pytest.raises(InputError, match="cannot be saved as a Hugging Face directory"):
        load_model(folder).network.save_pretrained(tmp_path / "out")
