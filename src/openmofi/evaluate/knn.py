"""k-nearest-neighbour classification as DINOv2 does it: softmax votes at temperature 0.07."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.metrics import nearest

_TEMPERATURE = 0.07
_K = 20


def knn(
    vectors: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray | None = None,
    gallery_labels: np.ndarray | None = None,
    *,
    k: Sequence[int] = (_K,),
) -> Iterator[tuple[str, float]]:
    """Yields the accuracy for each k: "knn" for 20, "knn_10" for 10.

    Args:
        vectors: unit vectors.
        labels: one per vector.
        gallery: vectors of the neighbours; without it, all other images are an image's neighbours.
        gallery_labels: one per vector of the gallery.
        k: how many neighbours vote; if there are fewer, all do. DINOv2 takes the softmax over the
            largest k and cuts it off for the others; its denominator changes no winner and is
            left out here.

    Raises:
        InputError: there is no k or one below 1, there are no neighbours, or values are not finite.
    """
    if not k or min(k) < 1:
        raise InputError(f"k = {tuple(k)} neighbours cannot vote; expected numbers from 1 up.")
    same = gallery is None or gallery_labels is None
    if same:
        gallery, gallery_labels = vectors, labels
    index, similarity = nearest(vectors, gallery, max(k), same=same)
    if not index.size:
        raise InputError(f"{len(gallery)} images leave no neighbours to vote; pass more.")
    votes = np.exp((similarity - similarity[:, :1]) / _TEMPERATURE)
    _, codes = np.unique(np.concatenate([labels, gallery_labels]), return_inverse=True)
    own, near = codes[: len(labels)], codes[len(labels) :][index]
    for count in k:
        right = _winners(near[:, :count], votes[:, :count]) == own
        yield "knn" if count == _K else f"knn_{count}", float(right.mean())


def _winners(near_QK: np.ndarray, votes_QK: np.ndarray) -> np.ndarray:
    """Returns the class with most votes for each query; among equals, the lowest number."""
    totals_QK = np.zeros(votes_QK.shape)  # votes of the neighbours' classes, not of all classes
    for neighbour in range(near_QK.shape[1]):
        agree = near_QK == near_QK[:, neighbour, None]
        totals_QK += agree * votes_QK[:, neighbour, None]
    best = totals_QK == totals_QK.max(1, keepdims=True)
    return np.where(best, near_QK, np.iinfo(near_QK.dtype).max).min(1)
