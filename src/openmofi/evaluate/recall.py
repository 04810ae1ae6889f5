"""Retrieval between images and their captions: recall@k as CLIP_benchmark counts it.

A text finds its image if that image is among the k nearest; an image finds its texts if any of
them is. Another image's text with the same words does not count.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.metrics import check_embeddings, hit_chances

AT = (1, 5, 10)
_SCORES_AT_ONCE = 1 << 24


def recall(
    image_vectors: np.ndarray, text_vectors: np.ndarray, image_of_text: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yields image_retrieval_recall@k (text to image) and text_retrieval_recall@k (image to text).

    Tied scores count with the mean over all their orders.

    Args:
        image_vectors: unit vectors, [images, dim].
        text_vectors: unit vectors, [texts, dim].
        image_of_text: row of the image that each text describes, [texts].

    Raises:
        InputError: a vector is not finite, an image has no text, or a text no image.
    """
    image_of_text = np.asarray(image_of_text)
    check_embeddings(image_vectors, rows=len(image_vectors))
    check_embeddings(text_vectors, rows=len(image_of_text))
    described = np.bincount(image_of_text, minlength=len(image_vectors))
    if len(described) > len(image_vectors) or not described.all():
        raise InputError(
            f"{int((described[: len(image_vectors)] == 0).sum())} of {len(image_vectors)} images "
            f"have no text and {int(described[len(image_vectors) :].sum())} texts no image; "
            "recall needs a text for each image and an image for each text."
        )
    images = np.arange(len(image_vectors))
    shares = _shares_found(text_vectors, image_vectors, image_of_text, images)
    for k, share in zip(AT, shares, strict=True):
        yield f"image_retrieval_recall@{k}", float(share)
    shares = _shares_found(image_vectors, text_vectors, images, image_of_text)
    for k, share in zip(AT, shares, strict=True):
        yield f"text_retrieval_recall@{k}", float(share)


def _shares_found(
    queries: np.ndarray, targets: np.ndarray, query_image: np.ndarray, target_image: np.ndarray
) -> np.ndarray:
    """Returns for each k the share of queries with a right target among the first k."""
    found = np.zeros(len(AT))
    step = max(_SCORES_AT_ONCE // len(targets), 1)
    for start in range(0, len(queries), step):
        scores = queries[start : start + step] @ targets.T
        right = query_image[start : start + step, None] == target_image
        found += hit_chances(scores, right, AT).sum(0)
    return found / len(queries)
