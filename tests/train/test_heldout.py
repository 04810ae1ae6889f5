"""Recall of held-out pairs: chance where the encoder knows nothing, equal captions alike."""

import numpy as np
import pytest
import torch

from model.tiny_models import write_model
from openmofi.config import EvaluationSettings
from openmofi.evaluate.zeroshot import class_vectors
from openmofi.model import load_model
from openmofi.train.data import DataParts, open_train_data
from openmofi.train.data_vectors import encode_data
from openmofi.train.distributed import World
from openmofi.train.heldout import HeldOut, recall_at_1
from selected import write_selected

_NAMES = ("image_to_text_r1", "text_to_image_r1")


@pytest.mark.parametrize(
    ("collapsed", "expected"),
    [("images", (0.02, 0.02)), ("texts", (0.02, 0.02)), ("both", (0.02, 0.02)), ("none", (1, 1))],
)
def test_a_collapsed_encoder_finds_its_pairs_by_chance(collapsed, expected):
    images, texts = np.eye(50, dtype=np.float32), np.eye(50, dtype=np.float32)
    if collapsed in ("images", "both"):
        images = np.full((50, 50), 50**-0.5, np.float32)
    if collapsed in ("texts", "both"):
        texts = np.full((50, 50), 50**-0.5, np.float32)
    scores = dict(recall_at_1(images, texts, [str(i) for i in range(50)]))
    assert scores == pytest.approx(dict(zip(_NAMES, expected, strict=True)))


def test_another_pair_with_the_same_caption_is_as_good():
    images, texts = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[1, 0, 2]]
    assert dict(recall_at_1(images, texts, ["a", "a", "b"])) == dict.fromkeys(_NAMES, 1.0)
    swapped = dict(recall_at_1(images, texts, ["a", "b", "c"]))
    assert swapped == pytest.approx(dict.fromkeys(_NAMES, 1 / 3))


def test_the_directions_of_recall_are_told_apart():
    images, texts = np.eye(2, dtype=np.float32), np.array([[1, 0], [0.8, 0.6]], np.float32)
    scores = dict(recall_at_1(images, texts, ["a", "b"]))
    assert scores == dict(zip(_NAMES, (1.0, 0.5), strict=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heldout")
    data = open_train_data(write_selected(folder, second=2))
    return load_model(write_model(folder / "clip", "clip"), device="cpu"), data


def _measured(model, data, **settings):
    parts = DataParts(data.take(np.arange(0)), data, data.take(np.arange(0)))
    held_out = HeldOut(parts, EvaluationSettings(**settings), reads_texts=True)
    return held_out.measure(model, World(0, 1, torch.device("cpu")))


def test_no_more_images_are_measured_than_asked_for(world):
    model, data = world
    assert _measured(model, data, max_images=6) == _measured(model, data.take(np.arange(6)))
    assert _measured(model, data, max_images=6) != _measured(model, data)


@pytest.mark.parametrize(("count", "some"), [(1, False), (2, True)])
def test_two_images_are_enough_to_measure(world, count, some):
    model, data = world
    assert bool(_measured(model, data.take(np.arange(count)))) == some


def test_zero_shot_asks_by_the_texts_of_the_entities_that_are_held_out(world):
    """Of the entities 1 and 2: the model's answer is the nearer text."""
    model, data = world
    data = data.take(np.flatnonzero(data.targets(np.arange(len(data)))[:, 0] > 0))
    targets = data.targets(np.arange(len(data)))[:, 0]
    vectors, _ = encode_data(model, data, World(0, 1, torch.device("cpu")))
    names = ["Green Apple", "Lime"], ["", "a small citrus"]
    answers = 1 + (vectors @ class_vectors(model, *names).T).argmax(1)
    expected = (answers == targets).mean()
    assert _measured(model, data)["heldout_zero_shot"] == pytest.approx(expected)
