"""Proposals: names, their order, further names, and what is not proposed."""

import numpy as np
import pytest

from openmofi.review.missing.phrases import Bearers
from openmofi.review.missing.propose import KnownLooks, NamedImages, propose

DIM = 24


class _World:
    """Images with captions, drawn one thing at a time."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.vectors, self.phrases = [], []

    def add(self, axis, count, *phrases, noise=0.12):
        """Adds images that look like an axis (None: like nothing), whose captions bear phrases."""
        centre = np.zeros(DIM)
        if axis is not None:
            centre[axis] = 1
        spread = noise if axis is not None else 1
        self.vectors.append(_unit(centre + spread * self.rng.normal(size=(count, DIM))))
        self.phrases += [set(phrases)] * count
        return self

    def propose(self, *, known=None, meanings=None, everywhere=None, least=5):
        vectors = np.concatenate([*self.vectors, _unit(self.rng.normal(size=(500, DIM)))])
        text = sorted(set().union(*self.phrases))
        own = [[i for i, p in enumerate(self.phrases) if one in p] for one in text]
        begins = np.cumsum([0, *map(len, own)])
        words = np.array([len(one.split()) for one in text])
        bearers = Bearers(begins, np.concatenate(own).astype(int), words, text)
        refused = np.array([len(images) for images in own])
        usual = {one: n for one, n in zip(text, refused.tolist(), strict=True)}
        total = np.array([(usual | (everywhere or {}))[one] for one in text], float)
        background = np.arange(len(self.phrases), len(vectors))
        looks = known or KnownLooks()
        named = lambda one: (meanings or {}).get(one, [])  # noqa: E731
        found = NamedImages(bearers, total, refused, vectors, background, looks, named)
        self.text = text
        return propose(found, least=least)

    def names(self, **given):
        return [self.text[one.phrase] for one in self.propose(**given)]


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _known(world, axis, count=16):
    centre = np.zeros(DIM)
    centre[axis] = 1
    images = _unit(centre + 0.12 * world.rng.normal(size=(count, DIM)))
    return KnownLooks(["e"], np.array([0, count]), images)


def test_the_name_and_not_the_words_beside_it():
    world = _World().add(0, 20, "chad", "chad flag", "flag").add(0, 10, "chad")
    world.add(1, 15, "peru", "flag").add(None, 20, "flag")
    assert world.names() == ["chad", "peru"]


def test_a_name_of_two_words_is_whole():
    world = _World().add(0, 20, "south africa", "south", "africa").add(None, 20, "south")
    assert world.names() == ["south africa"]


def test_a_name_of_two_words_that_some_captions_bend_is_whole_too():
    world = _World().add(0, 20, "south korea", "south", "korea").add(0, 5, "south")
    world.add(None, 60, "south")
    assert world.names(everywhere={"south": 300}) == ["south korea"]


def test_what_has_no_look_is_not_proposed():
    assert _World().add(None, 40, "view").add(None, 30, "holidays").names() == []


def test_one_name_with_two_looks_is_two_proposals():
    world = _World().add(0, 30, "india").add(1, 20, "india")
    found = world.propose()
    assert [len(one.images) for one in found] == [30, 20]


def test_a_rarer_name_of_the_same_look_is_another_name():
    world = _World().add(0, 30, "finland").add(0, 8, "suomi")
    [found] = world.propose()
    assert world.text[found.phrase] == "finland"
    assert [world.text[one] for one in found.others] == ["suomi"]


def test_as_frequent_a_name_of_the_same_look_is_another_thing():
    assert sorted(_World().add(0, 30, "chad").add(0, 28, "romania").names()) == ["chad", "romania"]


def test_a_description_that_stands_beside_the_name_is_no_other_name():
    world = _World().add(0, 20, "finland").add(0, 9, "finland", "northern europe")
    [found] = world.propose()
    assert found.others == ()


@pytest.mark.parametrize(("axis", "expected"), [(0, []), (1, ["kilo"])])
def test_a_known_name_is_proposed_only_if_the_images_show_something_else(axis, expected):
    world = _World().add(0, 20, "kilo")
    assert world.names(known=_known(world, axis), meanings={"kilo": [0]}) == expected


def test_a_known_name_most_of_whose_images_are_kept_is_not_proposed():
    world = _World().add(0, 20, "kilo")
    given = {"meanings": {"kilo": [-1]}, "known": _known(world, 1)}
    assert world.names(**given, everywhere={"kilo": 60}) == []


def test_what_looks_like_something_known_comes_later_and_says_so():
    world = _World().add(0, 20, "kilo").add(1, 18, "lima")
    first, second = world.propose(known=_known(world, 0))
    assert (world.text[first.phrase], world.text[second.phrase]) == ("lima", "kilo")
    assert second.nearest[0][2] < 0.7 < first.nearest[0][2]


def test_more_images_come_first_and_names_that_say_more():
    world = _World().add(0, 12, "few").add(1, 30, "many").add(2, 30, "vague").add(None, 60, "vague")
    assert world.names()[0] == "many"


def test_too_few_images_are_no_proposal():
    world = _World().add(0, 6, "okapi")
    assert world.names() == ["okapi"]
    assert _World().add(0, 6, "okapi").names(least=7) == []
