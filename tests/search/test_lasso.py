"""Points inside a polygon: the same as by comparing each point with each edge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path as Polygon

from openmofi.search import lasso

coordinate = st.sampled_from([0.0, 1.0, 0.5, 1 / 128, 37 / 128]) | st.floats(-10, 10)
corners = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=12)


@settings(max_examples=100, deadline=None)
@given(corners=corners)
def test_the_points_inside_are_those_of_the_plain_way(corners):
    points = np.random.default_rng(0).random((3000, 2)).astype(np.float32)
    points[:200] = np.round(points[:200] * 128) / 128  # on the edges of cells
    found = lasso.inside(points, np.asarray(corners))
    assert np.array_equal(found, Polygon(np.asarray(corners)).contains_points(points))


def test_a_point_without_a_place_is_never_inside():
    points = np.array([[np.nan, np.nan], [0.5, 0.5]], np.float32)
    around = np.array([[-1.0, -1], [-1, 2], [2, 2], [2, -1]])
    assert lasso.inside(points, around).tolist() == [False, True]


@pytest.mark.parametrize("size", [0.05, 0.4])
def test_few_points_are_compared_with_the_edges(monkeypatch, size):
    compared = []

    class Counting(Polygon):
        def contains_points(self, points):
            compared.append(len(points))
            return super().contains_points(points)

    monkeypatch.setattr(lasso, "Polygon", Counting)
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = 0.5 + size * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    lasso.inside(np.random.default_rng(1).random((100_000, 2), np.float32), circle)
    assert compared[1] < 0.15 * 100_000
