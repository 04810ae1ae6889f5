"""The map of an index: near vectors lie side by side, and added ones wait for the next map."""

import numpy as np
import pytest

from indexed import clustered, make_index
from openmofi.progress import Progress
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


def test_the_bar_covers_the_whole_work(monkeypatch):
    counts, close = [], Progress.close
    monkeypatch.setattr(Progress, "close", lambda bar: counts.append(bar) or close(bar))
    monkeypatch.setattr(layout, "_SAMPLE", 100)
    monkeypatch.setattr(layout, "_PLACED_AT_ONCE", 70)
    lay_out(clustered(np.random.default_rng(2), 400, 8)[0], threads=1)
    [bar] = counts
    assert bar.count == bar.total == 50 + 750 + 5  # of 300 others, 70 at a time


def test_vectors_beside_the_sample_are_read_some_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_SAMPLE", 100)
    monkeypatch.setattr(layout, "_PLACED_AT_ONCE", 70)
    index, read = make_index(tmp_path, clustered(np.random.default_rng(2), 400, 8)[0]), []
    vectors = index.vectors
    monkeypatch.setattr(index, "vectors", lambda rows: read.append(len(rows)) or vectors(rows))
    make_map(index, threads=1)
    assert read == [100, 70, 70, 70, 70, 20]


def test_a_vector_lies_at_the_median_of_its_nearest_in_the_sample():
    rng = np.random.default_rng(3)
    known, laid, vectors = rng.random((50, 4)), rng.random((50, 2)), rng.random((20, 4))
    distance = ((vectors[:, None] - known[None]) ** 2).sum(-1)
    expected = np.median(laid[np.argsort(distance, axis=1)[:, :10]], axis=1)
    assert np.allclose(layout._place(vectors, known, laid, threads=1), expected)
