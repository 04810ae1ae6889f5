"""Retrieval and classification measures on unit vectors; plain numpy, blocked, float32.

Legend: Q queries, N gallery, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from openmofi.errors import InputError
from openmofi.evaluate.ranks import expected_precisions

_BLOCK = 1024
_SCORES = 1 << 25
"""Similarities held at once: 128 MB of float32."""


def check_embeddings(embeddings: Float[np.ndarray, "N D"], *, rows: int) -> None:
    """Refuses embeddings that would give a silently different score.

    Raises:
        InputError: wrong number of rows, or values that are not finite.
    """
    if embeddings.ndim != 2 or len(embeddings) != rows:
        raise InputError(f"Embeddings of shape {embeddings.shape} do not fit {rows} labels.")
    bad = sum(int((~np.isfinite(embeddings[b]).all(1)).sum()) for b in _blocks(rows, _BLOCK))
    if bad:
        raise InputError(f"{bad} of {rows} embeddings hold NaN or infinity; none may.")


def average_precisions(
    embeddings: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], *, include_self: bool
) -> Float[np.ndarray, " N"]:
    """Returns each image's average precision as a query against all images.

    AP is the mean over positives of (its number among the positives) / (its rank). Of equal
    similarities it is the mean over all their orders, so equal embeddings score as chance does and
    not as the order of the files.

    Args:
        embeddings: unit vectors.
        labels: images with equal labels are each other's positives.
        include_self: whether the query itself is in the gallery, a positive (GPR1200's protocol).
            Without it, a query that has no other positive gets NaN.
    """
    return precisions_and_firsts(embeddings, labels, include_self=include_self)[0]


def precisions_and_firsts(
    embeddings: Float[np.ndarray, "N D"], labels: Int[np.ndarray, " N"], *, include_self: bool
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns `average_precisions`, and the chance that the nearest of all is a positive."""
    labels = np.asarray(labels)
    check_embeddings(embeddings, rows=len(labels))
    vectors = _at_least_single(embeddings)
    members = np.argsort(labels, kind="stable")
    ordered = labels[members]
    sides = [np.searchsorted(ordered, labels, side) for side in ("left", "right")]
    bounds = np.stack(sides, axis=1)
    result = np.empty((len(labels), 2), dtype=np.float64)
    for block in _blocks(len(labels), _rows_at_once(len(labels))):
        similarity_QN = vectors[block] @ vectors.T
        expected_precisions(similarity_QN, block.start, members, bounds, include_self, result)
    return result[:, 0], result[:, 1]


def hit_chances(
    scores_QN: Float[np.ndarray, "Q N"], right_QN: Bool[np.ndarray, "Q N"], at: Sequence[int]
) -> Float[np.ndarray, "Q K"]:
    """Returns the chance that one of the first k is right, equal scores being in random order.

    Args:
        scores_QN: of each query with each target.
        right_QN: what each query asks for.
        at: the numbers k.
    """
    best_Q1 = np.where(right_QN, scores_QN, -np.inf).max(1, keepdims=True)
    greater_Q1, tied_QN = (scores_QN > best_Q1).sum(1, keepdims=True), scores_QN == best_Q1
    tied_Q1, wrong_Q1 = tied_QN.sum(1, keepdims=True), (tied_QN & ~right_QN).sum(1, keepdims=True)
    # Drawn without replacement from those that tie with the best right one; 0 stays 0.
    drawn = np.arange(max(at))
    missed_Qk = (wrong_Q1 - drawn) / np.maximum(tied_Q1 - drawn, 1)
    missed_Qk = np.cumprod(np.concatenate([np.ones_like(best_Q1, float), missed_Qk], 1), axis=1)
    places_QK = np.clip(np.asarray(at) - greater_Q1, 0, tied_Q1)
    return 1 - np.take_along_axis(missed_Qk, places_QK, 1)


def _at_least_single(embeddings: np.ndarray) -> np.ndarray:
    """Returns half precision as float32: numpy multiplies it slowly and rounds every step."""
    return embeddings.astype(np.result_type(embeddings, np.float32), copy=False)


def _rows_at_once(gallery: int) -> int:
    return max(1, min(_BLOCK, _SCORES // max(1, gallery)))


def _blocks(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def nearest(
    queries: Float[np.ndarray, "Q D"], gallery: Float[np.ndarray, "N D"], k: int, *, same: bool
) -> tuple[Int[np.ndarray, "Q k"], Float[np.ndarray, "Q k"]]:
    """Returns (indices, similarities) of the k nearest, best first; of equals, the first one.

    Args:
        queries: unit vectors.
        gallery: unit vectors.
        k: how many; at most the gallery's size.
        same: queries and gallery are the same images, and an image is not its own neighbour.

    Raises:
        InputError: values that are not finite, or k is less than 1.
    """
    if k < 1:
        raise InputError(f"k = {k} neighbours cannot be found; ask for 1 or more.")
    check_embeddings(queries, rows=len(queries))
    check_embeddings(gallery, rows=len(gallery))
    queries, gallery = _at_least_single(queries), _at_least_single(gallery)
    k = min(k, len(gallery) - int(same))
    indices = np.empty((len(queries), k), dtype=np.int64)
    values = np.empty((len(queries), k), dtype=np.float32)
    if k < 1:
        return indices, values
    for block in _blocks(len(queries), _rows_at_once(len(gallery))):
        similarity_QN = queries[block] @ gallery.T
        for query, similarity_N in enumerate(similarity_QN, block.start):
            if same:
                similarity_N[query] = -np.inf
            indices[query] = _best(similarity_N, k)
            values[query] = similarity_N[indices[query]]
    return indices, values


def _best(values: np.ndarray, k: int) -> np.ndarray:
    """Returns the indices of the k greatest, best first; of equals, the first ones."""
    place = len(values) - k
    near = np.flatnonzero(values >= np.partition(values, place)[place])
    return near[np.argsort(-values[near], kind="stable")[:k]]


def true_ranks(vectors: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Returns how many classes each image prefers to its true one; of equal scores, the first wins.

    Args:
        vectors: [images, dim].
        labels: each image's row of `classes`; -1 is a class that is not among them, never found.
        classes: [classes, dim], compared by dot product.

    Raises:
        InputError: vectors that are not finite, or not one per label.
    """
    check_embeddings(vectors, rows=len(labels))
    check_embeddings(classes, rows=len(classes))
    ranks = np.full(len(labels), len(classes), dtype=np.int64)
    step = max(_SCORES // max(len(classes), 1), 1)
    for start in range(0, len(labels), step):
        label = labels[start : start + step, None]
        score = vectors[start : start + step] @ classes.T
        true = np.take_along_axis(score, np.maximum(label, 0), 1)
        first = score == true
        first &= np.arange(len(classes)) < label
        better = (score > true).sum(1) + first.sum(1)
        ranks[start : start + step] = np.where(label[:, 0] >= 0, better, len(classes))
    return ranks


def accuracies(
    prefix: str, ranks: np.ndarray, labels: np.ndarray, num_classes: int
) -> Iterator[tuple[str, float]]:
    """Yields shares of images whose true class has rank 0, a rank below 5, and rank 0 by class.

    Args:
        prefix: name of the first score, which begins the others'.
        ranks: what `true_ranks` returns.
        labels: the mean over classes counts those that occur here.
        num_classes: to choose from; top-5 needs five.
    """
    right = ranks == 0
    yield prefix, float(right.mean())
    if num_classes >= 5:
        yield f"{prefix}_top5", float((ranks < 5).mean())
    _, column, counts = np.unique(labels, return_inverse=True, return_counts=True)
    per_class = np.bincount(column, weights=right, minlength=len(counts)) / counts
    yield f"{prefix}_per_class", float(per_class.mean())


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
