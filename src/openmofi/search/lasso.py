"""Points on the map and a polygon -> which points lie inside.

Most points are settled by their cell of a grid: where no edge of the polygon comes near a cell, it
lies inside as a whole or not at all. The points of the other cells are compared with each edge.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.path import Path as Polygon

_CELLS = 128
"""Cells on each side of the map."""


def inside(
    points: Float[np.ndarray, "n 2"], corners: Float[np.ndarray, "m 2"]
) -> Bool[np.ndarray, " n"]:
    """Returns whether each point lies inside a polygon; NaN does not.

    Args:
        points: coordinates from 0 to 1, or NaN.
        corners: the polygon, which is closed from its last corner to its first.
    """
    polygon = Polygon(corners)
    near = _cells_near(corners)
    middles = (np.indices((_CELLS, _CELLS)).reshape(2, -1).T + 0.5) / _CELLS
    whole = polygon.contains_points(middles).reshape(_CELLS, _CELLS)
    known = ~np.isnan(points).any(axis=1)
    x, y = np.clip((np.nan_to_num(points) * _CELLS).astype(np.int32), 0, _CELLS - 1).T
    found = whole[x, y] & known
    unsure = np.flatnonzero(near[x, y] & known)
    found[unsure] = polygon.contains_points(points[unsure])
    return found


def _cells_near(corners: np.ndarray) -> Bool[np.ndarray, "cells cells"]:
    """Returns the cells that the polygon's outline may cross."""
    sides = zip(corners, np.roll(corners, -1, axis=0), strict=True)
    # Two steps to a cell, so that any crossed cell is that of a step or touches it.
    steps = [
        np.linspace(begin, end, 2 + int(2 * _CELLS * np.abs(end - begin).max()))
        for begin, end in sides
    ]
    place = np.floor(np.concatenate(steps) * _CELLS).astype(np.int64) + 2
    place = place[((place >= 1) & (place <= _CELLS + 2)).all(axis=1)]
    on = np.zeros((_CELLS + 4, _CELLS + 4), bool)
    on[place[:, 0], place[:, 1]] = True
    shifts = [slice(first, first + _CELLS) for first in (1, 2, 3)]
    return np.any([on[rows, columns] for rows in shifts for columns in shifts], axis=0)
