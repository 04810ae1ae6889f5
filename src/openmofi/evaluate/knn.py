"""k-nearest-neighbour classification as DINOv2 does it: softmax votes at temperature 0.07."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.evaluate.metrics import nearest

_TEMPERATURE = 0.07
_K = 20


def knn(
    vectors: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
) -> Iterator[tuple[str, float]]:
    """Yields the accuracy; without a gallery, an image's neighbours are the other images."""
    same = gallery is None or gallery_labels is None
    if same:
        gallery, gallery_labels = vectors, labels
    index, similarity = nearest(vectors, gallery, _K, same=same)
    votes = np.exp((similarity - similarity.max(1, keepdims=True)) / _TEMPERATURE)
    classes = np.unique(np.concatenate([labels, gallery_labels]))
    column = np.searchsorted(classes, gallery_labels)[index]
    totals = np.zeros((len(vectors), len(classes)))
    np.add.at(totals, (np.arange(len(vectors))[:, None], column), votes)
    yield "knn", float((classes[totals.argmax(1)] == labels).mean())
