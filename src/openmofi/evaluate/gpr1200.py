"""GPR1200 (Schall et al. 2021): 12,000 images in class order -> mAP, in all and by domain.

Every image is a query against all 12,000, itself included, so there are 10 positives each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from openmofi.errors import InputError
from openmofi.evaluate.metrics import average_precisions

NUM_CLASSES, PER_CLASS = 1200, 10
DOMAINS = {
    "landmarks": range(0, 200),
    "inat": range(200, 400),
    "sketch": range(400, 600),
    "instre": range(600, 800),
    "products": range(800, 1000),
    "faces": range(1000, 1200),
}


def mean_average_precision(embeddings: Float[np.ndarray, "12000 dim"]) -> dict[str, float]:
    """Returns mAP under all and under each domain's name.

    Args:
        embeddings: one row per image in class order; rows are normalised here.

    Raises:
        InputError: not 12,000 rows, or values that are not finite.
    """
    total = NUM_CLASSES * PER_CLASS
    if len(embeddings) != total:
        raise InputError(f"GPR1200 has {total:,} images; got {len(embeddings):,} embeddings.")
    return dict(_scores(np.asarray(embeddings, dtype=np.float32)))


def _scores(embeddings: np.ndarray) -> Iterator[tuple[str, float]]:
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    unit = embeddings / np.maximum(norms, 1e-12)
    precisions = average_precisions(unit, labels, include_self=True)
    yield "all", float(precisions.mean())
    for domain, classes in DOMAINS.items():
        inside = slice(classes.start * PER_CLASS, classes.stop * PER_CLASS)
        yield domain, float(precisions[inside].mean())
