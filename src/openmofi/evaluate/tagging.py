"""Entity tagging: does the model name the right entity for an image, even a rare one?

The candidates are the rows of the model's class head, or the texts of a knowledge base. Accuracy is
also split by the number of images from which the model learnt an entity: entity models differ in
the long tail, which the mean over images hides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from openmofi.evaluate.metrics import true_ranks

_BUCKETS = {
    "seen_0": (0, 0),
    "seen_1_to_9": (1, 9),
    "seen_10_to_99": (10, 99),
    "seen_100_to_999": (100, 999),
    "seen_1000_up": (1000, None),
}
"""Name -> (fewest, most) training images of an entity."""


def tagging(
    vectors: Float[np.ndarray, "n dim"],
    labels: Sequence[str],
    entities: Float[np.ndarray, "entities dim"],
    ids: Sequence[str],
    images: Mapping[str, int],
) -> Iterator[tuple[str, float]]:
    """Yields top-1 and top-5 accuracy, and top-1 by the number of training images.

    An image whose entity is not in `ids` counts as wrong.

    Args:
        vectors: unit vectors of the images.
        labels: id of the entity that each image shows.
        entities: unit vector of each candidate entity.
        ids: ids of the candidates.
        images: entity id -> number of training images; if empty, no score by frequency.
    """
    number = {entity: row for row, entity in enumerate(ids)}
    truth = np.array([number.get(label, -1) for label in labels], dtype=np.int64)
    ranks = true_ranks(vectors, truth, entities)
    yield "tag_top1", float((ranks < 1).mean())
    if len(ids) >= 5:
        yield "tag_top5", float((ranks < 5).mean())
    unknown = {label for label in labels if label not in number}
    if unknown:
        yield "tag_unknown_entities", float(len(unknown))
    if not images:
        return
    seen = np.array([images.get(label, 0) for label in labels])
    for bucket, (low, high) in _BUCKETS.items():
        inside = (seen >= low) & (seen <= high if high is not None else True)
        if inside.any():
            yield f"tag_top1_{bucket}", float((ranks[inside] < 1).mean())
