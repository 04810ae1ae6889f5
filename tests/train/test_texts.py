from pathlib import Path

import numpy as np
import pyarrow as pa

from openmofi.schema import VOCABULARY
from openmofi.train.data import TrainData
from openmofi.train.texts import TextMix, same_meaning, targets_of


def _data():
    vocabulary = pa.table(
        {
            "id": ["Q1", "Q2"],
            "label": ["Chad", "Peru"],
            "description": ["country in Africa", ""],
            "images": [2, 1],
        },
        schema=VOCABULARY,
    )
    table = pa.table({"caption": ["one", "two", "three"]})
    return TrainData(table, ((0,), (1, 0), (0,)), vocabulary, Path())


def test_every_kind_of_text_is_drawn_in_its_share():
    mix = TextMix(_data(), ("caption", "name", "description"), seed=0)
    rows, targets = np.zeros(3000, int), np.zeros(3000, int)
    drawn = mix.draw(rows, targets, step=1)
    shares = {text: drawn.count(text) / 3000 for text in set(drawn)}
    assert set(shares) == {"one", "Chad", "Chad: country in Africa"}
    assert all(abs(share - 1 / 3) < 0.04 for share in shares.values())


def test_an_entity_without_description_is_its_name():
    mix = TextMix(_data(), ("description",), seed=0)
    assert mix.draw(np.array([1]), np.array([1]), step=0) == ["Peru"]


def test_the_draw_of_a_step_can_be_repeated():
    mix = TextMix(_data(), ("caption", "name"), seed=3)
    rows, targets = np.arange(3).repeat(20), np.array([0, 1, 0]).repeat(20)
    assert mix.draw(rows, targets, step=5) == mix.draw(rows, targets, step=5)
    assert mix.draw(rows, targets, step=5) != mix.draw(rows, targets, step=6)


def test_targets_are_padded_with_minus_one():
    np.testing.assert_array_equal(targets_of(_data(), np.array([1, 2])), [[1, 0], [0, -1]])


def test_one_entity_and_one_text_are_one_meaning():
    targets = np.array([0, 1, 2, 0, 3, -1, -1])
    texts = ["Georgia", "Chad", "Georgia", "Georgia: a country", "Peru", "a", "b"]
    groups = same_meaning(targets, texts).tolist()
    assert groups[0] == groups[2] == groups[3]  # the state by its name, the country by itself
    assert len({groups[0], groups[1], groups[4], groups[5], groups[6]}) == 5
