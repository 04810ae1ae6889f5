"""Retrieval and classification measures on unit vectors; plain numpy, blocked, float32.

Legend: Q queries, N gallery, D width.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from openmofi.errors import InputError

_BLOCK = 1024


def check_embeddings(embeddings: Float[np.ndarray, "N D"], *, rows: int) -> None:
    """Refuses embeddings that would give a silently different score.

    Raises:
        InputError: wrong number of rows, or values that are not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) != rows:
        raise InputError(f"Embeddings of shape {embeddings.shape} do not fit {rows} labels.")
    bad = int((~np.isfinite(embeddings).all(1)).sum())
    if bad:
        raise InputError(f"{bad} of {rows} embeddings hold NaN or infinity; none may.")


def average_precisions(
    embeddings: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], *, include_self: bool
) -> Float[np.ndarray, " N"]:
    """Returns each image's average precision as a query against all images.

    AP is the mean over positives of (its number among the positives) / (its rank). Ties share
    their ranks evenly, so equal embeddings score as chance does and not as the order of the files.

    Args:
        embeddings: unit vectors.
        labels: images with equal labels are each other's positives.
        include_self: whether the query itself is in the gallery, a positive (GPR1200's protocol).
            Without it, a query that has no other positive gets NaN.
    """
    labels = np.asarray(labels)
    check_embeddings(embeddings, rows=len(labels))
    result = np.empty(len(labels), dtype=np.float64)
    for start in range(0, len(labels), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(labels)))
        similarity_QN = embeddings[rows] @ embeddings.T
        for query, similarity_N in zip(rows, similarity_QN, strict=True):
            positive_N = labels == labels[query]
            if not include_self:
                similarity_N[query] = -np.inf
                positive_N[query] = False
            result[query] = _average_precision(similarity_N, positive_N)
    return result


def _average_precision(similarity_N: np.ndarray, positive_N: np.ndarray) -> float:
    scores = -np.sort(-similarity_N[positive_N])
    if not len(scores):
        return float("nan")
    ranked = np.sort(similarity_N)
    greater = len(ranked) - np.searchsorted(ranked, scores, "right")
    tied = len(ranked) - np.searchsorted(ranked, scores, "left") - greater
    tied_positives = np.searchsorted(-scores, -scores, "right") - np.searchsorted(
        -scores, -scores, "left"
    )
    number = np.arange(1, len(scores) + 1)
    within = number - np.searchsorted(-scores, -scores, "left")
    rank = greater + within * (tied + 1) / (tied_positives + 1)
    return float(np.mean(number / rank))


def nearest(
    queries: Float[np.ndarray, "Q D"], gallery: Float[np.ndarray, "N D"], k: int, *, same: bool
) -> tuple[Int[np.ndarray, "Q k"], Float[np.ndarray, "Q k"]]:
    """Returns (indices, similarities) of the k nearest, best first.

    Args:
        queries: unit vectors.
        gallery: unit vectors.
        k: how many; at most the gallery's size.
        same: queries and gallery are the same images, and an image is not its own neighbour.
    """
    k = min(k, len(gallery) - int(same))
    indices = np.empty((len(queries), k), dtype=np.int64)
    values = np.empty((len(queries), k), dtype=np.float32)
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, start + _BLOCK)
        similarity_QN = queries[block] @ gallery.T
        if same:
            rows = np.arange(len(similarity_QN))
            similarity_QN[rows, start + rows] = -np.inf
        part = np.argpartition(-similarity_QN, k - 1, axis=1)[:, :k]
        close = np.take_along_axis(similarity_QN, part, 1)
        order = np.argsort(-close, axis=1, kind="stable")
        indices[block] = np.take_along_axis(part, order, 1)
        values[block] = np.take_along_axis(close, order, 1)
    return indices, values


def label_scores(predicted: set, true: set, nameable: set) -> dict[str, float]:
    """Returns precision, recall and F1 of (image, entity) labels.

    Args:
        predicted: labels given.
        true: labels that are right.
        nameable: right labels that a labeller reading the captions could give; recall counts
            over these.
    """
    right = len(predicted & true)
    precision = right / len(predicted) if predicted else 0.0
    recall = len(predicted & nameable) / len(nameable) if nameable else 0.0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both else 0.0,
    }
