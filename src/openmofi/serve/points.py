"""The map: each image's position and class -> flat arrays that a browser can draw directly.

uint32 row [n] | uint16 x, y [2n] from 0 to 65535 | uint8 class [n]       all little-endian
"""

from __future__ import annotations

import numpy as np

from openmofi.serve.library import Library
from openmofi.serve.refusal import Refusal

_CLASSES = 19
OTHER = 255
"""Class of images of less frequent entities, or without one."""


class MapPoints:
    """The map of one state of the index."""

    def __init__(self, library: Library):
        points = library.index.map_points()
        if points is None:
            message = "There is no map of this index; make it with `openmofi index map`."
            raise Refusal(404, "no_map", message)
        labels = library.index.labels
        shown = np.flatnonzero(library.index.live & ~np.isnan(points).any(axis=1))
        code = np.full(library.index.num_rows, -1)
        code[labels.row[::-1]] = labels.code[::-1]  # of several labels, the first is the surest
        code = code[shown]
        count = np.bincount(code[code >= 0], minlength=len(labels.ids))
        frequent = np.argsort(-count, kind="stable")[:_CLASSES]
        frequent = frequent[count[frequent] > 0]
        place = np.full(len(labels.ids) + 1, OTHER, np.uint8)  # the last one is for -1, no label
        place[frequent] = np.arange(len(frequent))
        self.classes = [(labels.ids[i], int(count[i])) for i in frequent.tolist()]
        """(Entity, number of points) of each class."""
        self.count = len(shown)
        levels = np.clip(np.round(points[shown] * 65535), 0, 65535)
        self.data = b"".join(
            [shown.astype("<u4").tobytes(), levels.astype("<u2").tobytes(), place[code].tobytes()]
        )
