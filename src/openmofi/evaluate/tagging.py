"""Entity tagging: is the entity that an image is answered with the right one, also a rare one?

The entities in question are the rows of the model's class head, or the texts of a knowledge base.
Accuracy is also given by how many images the model learnt an entity from: the long tail is where
entity models differ, and the mean over images hides it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from openmofi.evaluate.metrics import true_ranks

_BUCKETS = ((0, 0), (1, 9), (10, 99), (100, 999), (1000, None))


def tagging(
    vectors: Float[np.ndarray, "n dim"],
    labels: Sequence[str],
    entities: Float[np.ndarray, "entities dim"],
    ids: Sequence[str],
    images: Mapping[str, int],
) -> Iterator[tuple[str, float]]:
    """Yields top-1 and top-5 accuracy, and top-1 by the number of training images.

    An entity that is not among `ids` cannot be answered, and counts as wrong.

    Args:
        vectors: of the images, unit length.
        labels: entity id that each image shows.
        entities: unit vector of each entity that may be answered.
        ids: their ids.
        images: entity id -> images that it was learnt from; empty: nothing is said by frequency.
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
    for low, high in _BUCKETS:
        inside = (seen >= low) & (seen <= high if high is not None else True)
        if inside.any():
            yield f"tag_top1_{_name(low, high)}", float((ranks[inside] < 1).mean())


def _name(low: int, high: int | None) -> str:
    """Returns a bucket's name, such as seen_10_to_99."""
    if high is None:
        return f"seen_{low}_up"
    return f"seen_{low}" if low == high else f"seen_{low}_to_{high}"
