"""The neighbours of an entity: others that look alike, and others among its images' neighbours.

Every entity is represented by the mean of some of its images. The work is bounded: 50 images each,
and the 20,000 entities with most images.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from jaxtyping import Float

from openmofi.search import Index
from openmofi.serve.library import Library

_ENTITIES = 20_000
_SAMPLE = 50
_LOOKED_FROM = 20
"""Number of images whose neighbours are looked at."""
_NEAREST = 10
_AT_ONCE = 500


class EntityMeans:
    """The mean vectors of an index's entities."""

    def __init__(self, library: Library):
        self.index = library.index
        self.ids = list(library.own)[:_ENTITIES]
        parts = [np.zeros((0, self.index.meta["dim"]), np.float32)]
        for begin in range(0, len(self.ids), _AT_ONCE):
            parts.append(_means(self.index, self.ids[begin : begin + _AT_ONCE]))
        self._means = np.concatenate(parts)

    def nearest(self, entity: str, *, k: int) -> list[tuple[str, float]]:
        """Returns the entities that look most alike, with the cosines of their means."""
        similarity = self._means @ _means(self.index, [entity])[0]
        order = np.argsort(-similarity, kind="stable")[: k + 1].tolist()
        found = [(self.ids[i], float(similarity[i])) for i in order if self.ids[i] != entity]
        return found[:k]


def confusions(index: Index, entity: str, *, k: int) -> list[tuple[str, float]]:
    """Returns the other entities that the nearest images show, with their share of these images.

    The share is that of all neighbours, including those that show the entity itself.
    """
    own = _sample(index.rows_of(entity), _LOOKED_FROM)
    others: Counter[str] = Counter()
    looked = 0
    for row, vector in zip(own.tolist(), index.vectors(own), strict=True):
        near = index.nearest(vector, k=_NEAREST + 1)[0]
        hits = index.hits(near[near != row][:_NEAREST])
        looked += len(hits)
        others.update(e for hit in hits if entity not in hit.entities for e in hit.entities)
    return [(other, count / looked) for other, count in others.most_common(k)]


def _means(index: Index, entities: list[str]) -> Float[np.ndarray, "n dim"]:
    """Returns the mean of each entity's vectors, normalised."""
    rows = [_sample(index.rows_of(entity), _SAMPLE) for entity in entities]
    begins = np.cumsum([0, *map(len, rows[:-1])])
    total = np.add.reduceat(index.vectors(np.concatenate(rows)), begins)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def _sample(rows: np.ndarray, most: int) -> np.ndarray:
    """Returns at most `most` rows, evenly spread."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(np.int64)
    return rows[places]
