"""Retrieval within a labelled set: every image queries all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.evaluate.metrics import average_precisions, nearest


def retrieval(vectors: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields mAP and top-1, the query itself left out; nothing where no two images belong."""
    precisions = average_precisions(vectors, labels, include_self=False)
    asked = ~np.isnan(precisions)  # a class of one image asks for nothing
    if not asked.any():
        return
    yield "retrieval_map", float(precisions[asked].mean())
    first, _ = nearest(vectors, vectors, 1, same=True)
    yield "top1", float((labels[first[:, 0]] == labels)[asked].mean())
