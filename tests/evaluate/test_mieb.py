"""The wrapper for mteb; the package itself is an extra, so a stand-in for its card is used here."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

import fruit
from openmofi.errors import InputError
from openmofi.evaluate.mieb import MtebEncoder


@pytest.fixture
def encoder(monkeypatch, nano_dir):
    class ModelMeta:
        @classmethod
        def create_empty(cls, overwrites):
            return types.SimpleNamespace(**overwrites)

    package, models = types.ModuleType("mteb"), types.ModuleType("mteb.models")
    models.ModelMeta = ModelMeta
    monkeypatch.setitem(sys.modules, "mteb", package)
    monkeypatch.setitem(sys.modules, "mteb.models", models)
    return MtebEncoder(str(nano_dir), device="cpu")


def _image(number):
    return Image.open(io.BytesIO(fruit.photo("red", number)))


def test_images_and_texts_of_all_batches_become_the_models_vectors(encoder):
    images = [_image(n) for n in range(3)]
    batches = [{"image": images[:2]}, {"image": images[2:]}]
    found = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default")
    np.testing.assert_allclose(found, encoder.model.encode_images(images), atol=1e-5)
    texts = encoder.encode([{"text": ["lime", "a red apple"]}])
    np.testing.assert_allclose(texts, encoder.model.encode_texts(["lime", "a red apple"]))


def test_a_document_of_both_is_their_sum(encoder):
    batch = {"image": [_image(0)], "text": ["lime"]}
    apart = encoder.encode([{"image": batch["image"]}]) + encoder.encode([{"text": ["lime"]}])
    np.testing.assert_allclose(encoder.encode([batch]), apart, atol=1e-5)


def test_similarities_are_cosines(encoder):
    first, second = np.array([[2.0, 0], [0, 3]]), np.array([[1.0, 1], [0, 1]])
    expected = np.array([[0.5**0.5, 0], [0.5**0.5, 1]])
    np.testing.assert_allclose(encoder.similarity(first, second), expected, atol=1e-6)
    pairs = encoder.similarity_pairwise(first, second)
    np.testing.assert_allclose(pairs, np.diag(expected), atol=1e-6)


def test_the_card_names_the_run_and_its_weights(encoder, nano_dir):
    meta = encoder.mteb_model_meta
    assert meta.name == f"openmofi/{nano_dir.resolve().parent.name}"
    assert len(meta.revision) == 16
    assert meta.embed_dim == encoder.model.dim


def test_without_the_package_the_extra_is_named(monkeypatch, nano_dir):
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(InputError, match=r"pip install 'openmofi\[mteb\]'"):
        MtebEncoder(str(nano_dir))


def test_a_batch_of_something_else_is_refused(encoder):
    with pytest.raises(InputError, match="has audio; expected image or text"):
        encoder.encode([{"audio": [1]}])
