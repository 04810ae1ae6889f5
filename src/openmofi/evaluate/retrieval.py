"""Retrieval within a labelled set: every image queries all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.evaluate.metrics import precisions_and_firsts


def retrieval(vectors: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields mAP and top-1 without the query itself; nothing if every class has one image.

    Equal similarities count with the mean over all their orders.
    """
    precisions, firsts = precisions_and_firsts(vectors, labels, include_self=False)
    asked = ~np.isnan(precisions)  # the only image of a class has nothing to find
    if not asked.any():
        return
    yield "retrieval_map", float(precisions[asked].mean())
    yield "top1", float(firsts[asked].mean())
