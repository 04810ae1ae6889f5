"""Typographic attacks: their files, and scores against references by hand."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fruit
from openmofi.errors import InputError
from openmofi.evaluate.attacks import (
    attack_robustness,
    is_attacks,
    is_rta100,
    is_scam,
    open_attacks,
    scam_templates,
)
from openmofi.evaluate.data import AttackedImages, file_places

AXES = ("cat", "dog", "mug")


def _encode(texts):
    """Encodes a text as the axis of the first of the names in it."""
    rows = [next(i for i, name in enumerate(AXES) if name in text) for text in texts]
    return np.eye(3, dtype=np.float32)[rows]


def _images(root, objects, words, groups=None):
    files = [f"{i}.png" for i in range(len(objects))]
    groups = groups or ("SCAM",) * len(objects)
    return AttackedImages(file_places(root, files), tuple(objects), tuple(words), tuple(groups))


def _scam(folder, rows):
    columns = ("type", "object_label", "attack_word")
    table = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
    table |= {"image": [{"bytes": fruit.photo("red", i), "path": None} for i in range(len(rows))]}
    pq.write_table(pa.table(table), folder / "train-00000-of-00001.parquet")
    return folder


def test_scams_table_is_read(tmp_path):
    rows = [("SCAM", "mug", "dog"), ("NoSCAM", "mug", "dog"), ("SynthSCAM", "cat", "taxi")]
    found = open_attacks(_scam(tmp_path, rows))
    assert is_scam(tmp_path)
    assert is_attacks(tmp_path)
    assert list(zip(found.groups, found.objects, found.words, strict=True)) == rows
    assert found.places.table["path"].to_pylist() == ["row:0", "row:1", "row:2"]


@pytest.mark.parametrize("inside", [".", "data", "ours/data"])
def test_rta_100s_names_are_read(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("label=ice cream_text=dog.png", "label=mug_text=paper clip.jpg", "label=x.png"):
        (folder / name).write_bytes(fruit.photo("red", kind="PNG"))
    found = open_attacks(tmp_path)
    assert is_rta100(tmp_path)
    assert (found.objects, found.words) == (("ice cream", "mug"), ("dog", "paper clip"))
    assert found.groups == ("RTA-100",) * 2
    assert all((tmp_path / path).is_file() for path in found.places.table["path"].to_pylist())


def test_ones_own_images_are_listed(tmp_path):
    text = "file,object,word,group\na.png,mug,dog,paper\nb.png,mug,,plain\n"
    (tmp_path / "attacks.csv").write_text(text)
    found = open_attacks(tmp_path)
    assert is_attacks(tmp_path)
    assert (found.words, found.groups) == (("dog", ""), ("paper", "plain"))


@given(st.integers(0, 10_000))
def test_scores_equal_the_slow_reference(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((20, 3)).astype(np.float32)
    pairs = [rng.permutation(AXES)[:2].tolist() for _ in range(20)]
    images = _images(tmp_path_factory.getbasetemp(), *zip(*pairs, strict=True))
    scores = dict(attack_robustness(vectors, images, _encode, ["a {c}"]))
    two_way = [
        v[AXES.index(o)] > v[AXES.index(w)] for v, (o, w) in zip(vectors, pairs, strict=True)
    ]
    nearest = [AXES[v.argmax()] for v in vectors]
    assert scores["attack_two_way_scam"] == np.mean(two_way)
    right, fooled = zip(
        *[(n == o, n == w) for n, (o, w) in zip(nearest, pairs, strict=True)], strict=True
    )
    assert scores["attack_top1_scam"] == np.mean(right)
    assert scores["attack_fooled_scam"] == np.mean(fooled)


def test_groups_are_scored_apart_and_images_without_a_word_by_top_1_alone(tmp_path):
    images = _images(tmp_path, ["cat", "mug"], ["dog", ""], ["SCAM", "NoSCAM"])
    scores = dict(attack_robustness(np.eye(3, dtype=np.float32)[[1, 2]], images, _encode))
    assert scores == {
        "attack_two_way_scam": 0.0,
        "attack_top1_scam": 0.0,
        "attack_fooled_scam": 1.0,
        "attack_top1_noscam": 1.0,
    }


def test_a_tie_between_object_and_word_is_lost(tmp_path):
    same = np.ones((1, 3), dtype=np.float32)
    images = _images(tmp_path, ["cat"], ["dog"])
    assert dict(attack_robustness(same, images, _encode))["attack_two_way_scam"] == 0.0


def test_scams_templates_are_the_first_32_of_imagenets():
    templates = scam_templates()
    assert len(templates) == 32
    assert (templates[0], templates[-1]) == ("a bad photo of a {c}.", "a blurry photo of the {c}.")


@pytest.mark.parametrize("shown", [None, "", " "])
def test_images_that_do_not_say_what_they_show_are_refused(tmp_path, shown):
    with pytest.raises(InputError, match=r"1 of 2 images .* row 1"):
        open_attacks(_scam(tmp_path, [("SCAM", "mug", "dog"), ("SCAM", shown, "dog")]))


def test_other_data_and_wrong_numbers_of_vectors_are_refused(tmp_path):
    fruit.write_listing(tmp_path)
    assert not is_attacks(tmp_path)
    with pytest.raises(InputError, match="holds no typographic attacks"):
        open_attacks(tmp_path)
    with pytest.raises(InputError, match="do not fit 1 labels"):
        dict(attack_robustness(np.eye(3), _images(tmp_path, ["cat"], ["dog"]), _encode))
