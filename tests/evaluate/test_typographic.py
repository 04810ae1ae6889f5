"""The typographic attack against references that share no code with it, and on known models."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fruit
from openmofi.errors import InputError
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.typographic import attack_classes, attack_scores, typographic, write_on
from openmofi.kb import KnowledgeBase, build_kb

CLASSES = ("green", "lime", "red")


class Fake:
    """Tells fruit by their colour; where it sees red letters it answers `reads`, if that is given.

    Letters on a red apple escape it. A class's vector is its row in CLASSES, one-hot.
    """

    def __init__(self, reads=None):
        self.reads = reads
        self.seen = []

    def encode_images(self, pictures):
        arrays = [self._pixels(picture) for picture in pictures]
        return np.eye(3, dtype=np.float32)[[self._class(pixels) for pixels in arrays]]

    def encode_texts(self, texts):
        first = [text.split()[0].lower().rstrip(":") for text in texts]
        near = np.array([[1, 0.2, 0.1], [0.2, 1, 0], [0.1, 0, 1]], np.float32)
        return near[[CLASSES.index(word) for word in first]]

    def _pixels(self, picture):
        if isinstance(picture, bytes):
            self.seen.append(picture)
            picture = Image.open(io.BytesIO(picture))
        return np.asarray(picture.convert("RGB"), np.float32)

    def _class(self, pixels):
        centre = np.median(pixels, axis=(0, 1))
        red = pixels[..., 0] - pixels[..., 1:].max(axis=2)
        if self.reads is not None and (red - np.median(red) > 100).any():
            return self.reads
        colours = np.array([fruit.COLOURS[name] for name in CLASSES], np.float32)
        return int(((colours - centre) ** 2).sum(1).argmin())


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attack")
    kb = build_kb(fruit.write_catalogue(folder), out=folder / "kb").out
    lines = ["file,label"]
    for number in range(12):
        name = fruit.NAMES[number % 3]
        (folder / f"{number}.jpg").write_bytes(fruit.picture(name, number, side=96))
        lines.append(f"{number}.jpg,{name}")
    (folder / "test.csv").write_text("\n".join(lines) + "\n")
    return open_labelled(folder / "test.csv"), KnowledgeBase.open(kb)


def slow_attack(answers, labels, texts):
    """For each class the most frequent wrong answer; the nearer text decides between equals."""
    chosen = []
    for own in range(len(texts)):
        others = [c for c in range(len(texts)) if c != own]
        times = {
            c: sum(a == c and t == own for a, t in zip(answers, labels, strict=True))
            for c in others
        }
        chosen.append(max(others, key=lambda c: (times[c], float(texts[own] @ texts[c]))))
    return chosen


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 40))
def test_attack_classes_equal_the_slow_reference(seed, num_classes, num_pictures):
    rng = np.random.default_rng(seed)
    answers, labels = rng.integers(num_classes, size=(2, num_pictures))
    texts = rng.standard_normal((num_classes, 4)).astype(np.float32)
    found = attack_classes(answers, labels, texts)
    assert found.tolist() == slow_attack(answers, labels, texts)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_no_class_attacks_itself(seed, num_classes):
    rng = np.random.default_rng(seed)
    answers, labels = rng.integers(num_classes, size=(2, 30))
    texts = np.ones((num_classes, 3), np.float32)
    assert (attack_classes(answers, labels, texts) != np.arange(num_classes)).all()


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_scores_are_shares_and_a_fooled_picture_is_never_a_right_one(seed):
    rng = np.random.default_rng(seed)
    plain, attacked, labels = rng.integers(4, size=(3, 25))
    scores = dict(attack_scores(plain, attacked, labels, np.array([1, 2, 3, 0])))
    assert all(0 <= score <= 1 for score in scores.values())
    assert scores["typographic_attacked"] + scores["typographic_fooled"] <= 1


def test_scores_of_a_case_counted_by_hand():
    plain, attacked = np.array([0, 1, 1, 2]), np.array([1, 1, 0, 2])
    scores = dict(attack_scores(plain, attacked, np.array([0, 1, 2, 2]), np.array([1, 2, 0])))
    assert scores == {
        "typographic_clean": 0.75,
        "typographic_attacked": 0.5,
        "typographic_fooled": 0.5,
    }


def test_a_model_that_only_looks_is_not_fooled(opened):
    scores = dict(typographic(Fake(), images=opened[0], kb=opened[1]))
    assert scores == {
        "typographic_clean": 1.0,
        "typographic_attacked": 1.0,
        "typographic_fooled": 0.0,
    }


def test_a_model_that_reads_answers_what_is_written(opened):
    # «lime» is the nearest text of green, and nothing is confused: green's pictures fool it.
    scores = dict(typographic(Fake(reads=1), images=opened[0], kb=opened[1]))
    assert list(scores.values()) == pytest.approx([1.0, 2 / 3, 1 / 3])


def test_the_same_call_gives_the_same_pictures_and_scores(opened):
    first, second = Fake(reads=1), Fake(reads=1)
    scores = [dict(typographic(m, images=opened[0], kb=opened[1])) for m in (first, second)]
    assert scores[0] == scores[1]
    assert first.seen == second.seen
    assert len(first.seen) == 12


def test_a_reference_makes_the_attack_the_same_for_all_models(opened):
    one, other = Fake(), Fake(reads=2)
    for model in (one, other):
        dict(typographic(model, images=opened[0], kb=opened[1], reference=Fake()))
    assert one.seen == other.seen


@pytest.mark.parametrize("side", [(64, 64), (400, 300), (30, 90)])
@pytest.mark.parametrize("name", ["Chad", "Bosnia and Herzegovina"])
def test_a_name_is_written_in_red_inside_the_picture(side, name):
    plain = Image.new("RGB", side, (230, 230, 230))
    written = Image.open(io.BytesIO(write_on(plain, name)))
    assert (written.format, written.size) == ("JPEG", side)
    pixels = np.asarray(written, np.float32)
    assert (pixels[..., 0] - pixels[..., 1] > 60).sum() > 10
    assert plain.getextrema() == ((230, 230),) * 3


def test_the_place_and_size_of_the_letters_follow_the_picture():
    tops = []
    for side in (64, 128, 512):
        plain = Image.new("RGB", (side, side), (230, 230, 230))
        pixels = np.asarray(Image.open(io.BytesIO(write_on(plain, "Chad"))), np.float32)
        rows = np.flatnonzero((pixels[..., 0] - pixels[..., 1] > 60).any(axis=1))
        tops.append((rows.min() / side, rows.max() / side))
    np.testing.assert_allclose(tops, [tops[-1]] * 3, atol=0.04)


def test_labels_unknown_to_the_knowledge_base_are_refused(opened, tmp_path):
    (tmp_path / "kiwi.jpg").write_bytes(fruit.picture("lime"))
    (tmp_path / "test.csv").write_text("file,label\nkiwi.jpg,kiwi\nkiwi.jpg,lime\n")
    with pytest.raises(InputError, match="has no entity 'kiwi'"):
        dict(typographic(Fake(), images=open_labelled(tmp_path / "test.csv"), kb=opened[1]))


def test_one_class_alone_cannot_be_attacked(opened, tmp_path):
    (tmp_path / "a.jpg").write_bytes(fruit.picture("lime"))
    (tmp_path / "test.csv").write_text("file,label\na.jpg,lime\na.jpg,lime\n")
    with pytest.raises(InputError, match="needs two classes or more"):
        dict(typographic(Fake(), images=open_labelled(tmp_path / "test.csv"), kb=opened[1]))


def test_pictures_that_cannot_be_read_are_left_out(opened, tmp_path):
    lines = ["file,label"]
    for number, name in enumerate(("lime", "red", "green")):
        (tmp_path / f"{number}.jpg").write_bytes(fruit.picture(name, number, side=96))
        lines.append(f"{number}.jpg,{name}")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "test.csv").write_text("\n".join([*lines, "bad.jpg,red"]) + "\n")
    model = Fake()
    dict(typographic(model, images=open_labelled(tmp_path / "test.csv"), kb=opened[1]))
    assert len(model.seen) == 3
