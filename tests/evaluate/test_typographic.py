"""The typographic attack against references that share no code with it, and on known models."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fruit
from openmofi.errors import InputError
from openmofi.evaluate.layouts import open_data, open_labelled
from openmofi.evaluate.typographic import (
    attack_classes,
    attack_scores,
    chosen_words,
    typographic,
    write_attacks,
    write_on,
)
from openmofi.evaluate.vectors import Encoded

CLASSES = ("green", "lime", "red")


class Fake:
    """Tells fruit by their colour; where it sees red letters it answers `reads`, if that is given.

    Letters on a red apple escape it. A class's vector is its row in CLASSES, one-hot.
    """

    def __init__(self, reads=None):
        self.reads = reads
        self.seen = []

    def encode_bytes(self, photos, *, total, title):
        self.seen = list(photos)
        assert len(self.seen) == total
        return self.encode(self.seen)

    def encode(self, photos):
        opened = [Image.open(io.BytesIO(photo)).convert("RGB") for photo in photos]
        answers = [self._class(np.asarray(image, np.float32)) for image in opened]
        return Encoded(np.eye(3, dtype=np.float32)[answers], np.arange(len(answers)))

    @staticmethod
    def text_vectors():
        return np.array([[1, 0.2, 0.1], [0.2, 1, 0], [0.1, 0, 1]], np.float32)

    def _class(self, pixels):
        centre = np.median(pixels, axis=(0, 1))
        red = pixels[..., 0] - pixels[..., 1:].max(axis=2)
        if self.reads is not None and (red - np.median(red) > 100).any():
            return self.reads
        colours = np.array([fruit.COLOURS[name] for name in CLASSES], np.float32)
        return int(((colours - centre) ** 2).sum(1).argmin())


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attack")
    lines = ["file,label"]
    for number in range(12):
        name = fruit.NAMES[number % 3]
        (folder / f"{number}.jpg").write_bytes(fruit.photo(name, number, side=96))
        lines.append(f"{number}.jpg,{name}")
    (folder / "test.csv").write_text("\n".join(lines) + "\n")
    return open_labelled(folder / "test.csv")


def _plain(model, images):
    files = images.places.table["path"].to_pylist()
    return model.encode([(images.places.root / file).read_bytes() for file in files])


def _attack(model, images, **options):
    encoded, texts = _plain(model, images), model.text_vectors()
    return dict(typographic(model, images, encoded, texts=texts, names=CLASSES, **options))


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
def test_attack_classes_equal_the_slow_reference(seed, num_classes, num_images):
    rng = np.random.default_rng(seed)
    answers, labels = rng.integers(num_classes, size=(2, num_images))
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
def test_scores_are_shares_and_a_fooled_image_is_never_a_right_one(seed):
    rng = np.random.default_rng(seed)
    plain, attacked, labels = rng.integers(4, size=(3, 25))
    scores = dict(attack_scores(plain, attacked, labels, np.array([1, 2, 3, 0])[labels]))
    assert all(0 <= score <= 1 for score in scores.values())
    assert scores["typographic_attacked"] + scores["typographic_fooled"] <= 1


def test_scores_of_a_case_counted_by_hand():
    plain, attacked = np.array([0, 1, 1, 2]), np.array([2, 1, 0, 2])
    labels = np.array([0, 1, 2, 2])
    scores = dict(attack_scores(plain, attacked, labels, np.array([1, 2, 0])[labels]))
    assert scores == {
        "typographic_clean": 0.75,
        "typographic_attacked": 0.5,
        "typographic_fooled": 0.25,
    }


def test_a_model_that_only_looks_is_not_fooled(images):
    assert _attack(Fake(), images) == {
        "typographic_clean": 1.0,
        "typographic_attacked": 1.0,
        "typographic_fooled": 0.0,
    }


def test_a_model_that_reads_answers_what_is_written(images):
    # «lime» is the nearest text of green, and nothing is confused: green's images fool it.
    assert list(_attack(Fake(reads=1), images).values()) == pytest.approx([1.0, 2 / 3, 1 / 3])


def test_the_same_call_gives_the_same_images_and_scores(images):
    first, second = Fake(reads=1), Fake(reads=1)
    assert _attack(first, images) == _attack(second, images)
    assert first.seen == second.seen
    assert len(first.seen) == 12


def test_words_given_from_outside_make_the_attack_the_same_for_all_models(images):
    one, other, words = Fake(), Fake(reads=2), np.full(12, 1)
    scores = [_attack(model, images, words=words) for model in (one, other)]
    assert one.seen == other.seen
    assert scores[0] != scores[1]


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_a_seed_draws_other_classes_and_the_same_ones_again(seed, num_classes):
    labels = np.random.default_rng(seed).integers(num_classes, size=40)
    texts = np.ones((num_classes, 2), np.float32)
    drawn = [chosen_words(labels, labels, texts, seed=seed) for _ in range(2)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != labels).all()
    assert set(drawn[0]) <= set(range(num_classes))


def test_written_attacks_are_read_again_with_their_truth(images, tmp_path):
    rows, words = np.array([0, 1, 5]), np.array([2, 0, 1])
    assert write_attacks(images, rows, words, CLASSES, out=tmp_path) == 3
    found = open_data(tmp_path)
    assert found.objects == tuple(images.labels[row] for row in rows)
    assert found.words == ("red", "green", "lime")
    with Image.open(tmp_path / found.places.table["path"][0].as_py()) as photo:
        assert photo.size == (96, 96)


@pytest.mark.parametrize("side", [(64, 64), (400, 300), (30, 90)])
@pytest.mark.parametrize("name", ["Chad", "Bosnia and Herzegovina"])
def test_a_name_is_written_in_red_inside_the_image(side, name):
    plain = Image.new("RGB", side, (230, 230, 230))
    written = Image.open(io.BytesIO(write_on(plain, name)))
    assert (written.format, written.size) == ("JPEG", side)
    pixels = np.asarray(written, np.float32)
    assert (pixels[..., 0] - pixels[..., 1] > 60).sum() > 10
    assert plain.getextrema() == ((230, 230),) * 3


def test_the_place_and_size_of_the_letters_follow_the_image():
    tops = []
    for side in (64, 128, 512):
        plain = Image.new("RGB", (side, side), (230, 230, 230))
        pixels = np.asarray(Image.open(io.BytesIO(write_on(plain, "Chad"))), np.float32)
        rows = np.flatnonzero((pixels[..., 0] - pixels[..., 1] > 60).any(axis=1))
        tops.append((rows.min() / side, rows.max() / side))
    np.testing.assert_allclose(tops, [tops[-1]] * 3, atol=0.04)


def test_one_class_alone_cannot_be_attacked():
    with pytest.raises(InputError, match="needs at least two classes"):
        chosen_words(np.zeros(3, int), np.zeros(3, int), np.ones((1, 2), np.float32))
