"""Looks: found among other images, no larger than they are, and none where there is none."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from openmofi.review.missing.looks import distinct_share, find_look, second_half


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _around(axis, count, rng, noise=0.15, dim=24):
    centre = np.zeros(dim)
    centre[axis] = 1
    return _unit(centre + noise * rng.normal(size=(count, dim)))


def _noise(count, rng, dim=24):
    return _unit(rng.normal(size=(count, dim)))


@pytest.mark.parametrize("seed", range(5))
def test_a_look_is_found_among_wrong_images(seed):
    rng = np.random.default_rng(seed)
    images = np.concatenate([_around(0, 20, rng), _noise(6, rng)])
    look = find_look(images, _noise(1000, rng), least=5)
    members = set(look.members.tolist())
    assert len(members & set(range(20))) >= 18
    assert len(members - set(range(20))) <= 1
    assert look.mean[0] > 0.9
    assert 0.9 <= look.purity < 1


@pytest.mark.parametrize("seed", range(5))
def test_evidence_bounds_the_binomial_tail(seed):
    rng = np.random.default_rng(seed)
    images, background = np.concatenate([_around(0, 8, rng), _noise(8, rng)]), _noise(500, rng)
    look = find_look(images, background, least=4)
    p = (1 + (background @ look.mean >= look.least).sum()) / 501
    tail = binom.logsf(len(look.members) - 1, len(images), p)
    assert -look.evidence >= tail - 1e-6
    m, n = len(look.members), len(images)
    q = m / n
    divergence = q * math.log(q / p) + (1 - q) * math.log(max(1 - q, 1e-12) / (1 - p))
    assert look.evidence == pytest.approx(n * divergence, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_images_of_nothing_in_common_have_no_evident_look(seed):
    rng = np.random.default_rng(seed)
    look = find_look(_noise(30, rng), _noise(1000, rng), least=5)
    assert look is None or look.evidence < 12


def test_of_two_looks_the_larger_one_comes_first():
    rng = np.random.default_rng(0)
    images = np.concatenate([_around(0, 8, rng), _around(1, 16, rng)])
    look = find_look(images, _noise(1000, rng), least=5)
    assert set(look.members.tolist()) <= set(range(8, 24))


@pytest.mark.parametrize("seed", range(20))
def test_one_heap_is_not_divided(seed):
    rng = np.random.default_rng(seed)
    assert second_half(_around(0, 40, rng), least=5) is None


def test_two_looks_are_divided_where_they_differ():
    rng = np.random.default_rng(0)
    images = np.concatenate([_around(0, 30, rng), _around(1, 20, rng)])
    assert second_half(images, least=5).tolist() == [False] * 30 + [True] * 20


def test_what_all_refused_images_look_like_is_no_look():
    rng = np.random.default_rng(0)
    look = find_look(_around(0, 20, rng), _around(0, 1000, rng), least=5)
    assert look is None or look.evidence < 12


def test_a_look_needs_enough_images():
    rng = np.random.default_rng(0)
    assert find_look(_around(0, 4, rng), _noise(100, rng), least=5) is None


@pytest.mark.parametrize(("own", "other"), [(20, 16), (60, 16), (16, 60), (6, 16)])
def test_the_same_thing_is_not_nearer_to_itself(own, other):
    shares = [
        distinct_share(_around(0, own, rng), _around(0, other, rng))
        for rng in map(np.random.default_rng, range(20))
    ]
    assert 0.35 < np.mean(shares) < 0.65


def test_another_thing_is_nearer_to_itself():
    rng = np.random.default_rng(0)
    assert distinct_share(_around(0, 20, rng), _around(1, 16, rng)) > 0.95
