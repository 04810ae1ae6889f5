from pathlib import Path

import numpy as np
import pyarrow as pa

from openmofi.schema import VOCABULARY
from openmofi.train.class_lists import ClassLists
from openmofi.train.data import TrainData
from openmofi.train.order import uniform
from openmofi.train.texts import KINDS, TextMix, meaning_keys


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
    return TrainData(table, ClassLists.of([[0], [1, 0], [0]]), vocabulary, Path())


def test_every_kind_of_text_is_drawn_in_its_share():
    mix = TextMix(_data(), ("caption", "name", "description", "caption"))
    kinds = mix.kinds(uniform(np.arange(4000), columns=1, key=0)[:, 0])
    np.testing.assert_allclose(np.bincount(kinds) / 4000, [0.5, 0.25, 0.25], atol=0.03)
    zeros = np.zeros(3, int)
    drawn = mix.texts(np.arange(3), zeros, zeros, zeros)
    assert drawn == ["one", "Chad", "Chad: country in Africa"]


def test_an_entity_without_description_is_its_name():
    mix = TextMix(_data(), ("description",))
    kinds = mix.kinds(np.array([0.0]))
    assert mix.texts(kinds, np.array([1]), np.array([1]), np.array([0])) == ["Peru"]


def test_kinds_are_numbered_as_teachers_store_them():
    assert KINDS == ("caption", "name", "description", "synthetic")
    for kind in KINDS[:3]:
        assert KINDS[TextMix(_data(), (kind,)).kinds(np.array([0.7]))[0]] == kind


def test_targets_are_padded_with_minus_one():
    np.testing.assert_array_equal(_data().targets(np.array([1, 2])), [[1, 0], [0, -1]])


def test_pairs_of_one_entity_or_one_text_share_a_key():
    targets = np.array([0, 1, 2, 0, -1, -1])
    texts = ["Georgia", "Chad", "Georgia", "Georgia: a country", "a", "a"]
    keys = meaning_keys(targets, texts)
    shared = [
        {j for j in range(6) if j != i and ((keys[i] == keys[j]) & (keys[i] >= 0)).any()}
        for i in range(6)
    ]
    assert shared == [{2, 3}, set(), {0}, {0}, {5}, {4}]
