"""The map of an index: near vectors lie side by side, and added ones wait for the next map."""

import numpy as np
import pytest

from indexed import clustered, make_index
from openmofi.search import layout
from openmofi.search.layout import lay_out, make_map


@pytest.mark.parametrize("sample", [30_000, 150])
def test_neighbours_on_the_map_are_neighbours_among_the_vectors(monkeypatch, sample):
    monkeypatch.setattr(layout, "_SAMPLE", sample)
    vectors, of = clustered(np.random.default_rng(2), 400, 16, clusters=6)
    points = lay_out(vectors, threads=1)
    assert points.shape == (400, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    distance = ((points[:, None] - points[None]) ** 2).sum(-1) + 9 * np.eye(400)
    assert (of[distance.argmin(1)] == of).mean() > 0.95


def test_the_map_is_the_same_again_and_leaves_deleted_rows_out(tmp_path):
    vectors, _ = clustered(np.random.default_rng(3), 120, 8)
    index = make_index(tmp_path, vectors).delete([5])
    points = make_map(index, threads=1).map_points()
    assert np.flatnonzero(np.isnan(points).any(1)).tolist() == [5]
    again = make_map(type(index).open(index.folder), threads=1).map_points()
    assert np.array_equal(points, again, equal_nan=True)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_any_integer_is_a_seed_of_the_map(seed):
    points = lay_out(clustered(np.random.default_rng(4), 12, 8)[0], seed=seed, threads=1)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_a_handful_of_images_has_a_map_too(count):
    points = lay_out(clustered(np.random.default_rng(4), count, 8)[0], threads=1)
    assert np.isfinite(points).all()


def test_images_that_are_all_the_same_lie_in_one_place():
    assert np.ptp(lay_out(np.ones((40, 8), np.float32)), axis=0).tolist() == [0.0, 0.0]
