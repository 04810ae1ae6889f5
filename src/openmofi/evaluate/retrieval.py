"""Retrieval within a labelled set: every image queries all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.evaluate.metrics import precisions_and_firsts


def retrieval(vectors: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yields mAP and top-1, the query itself left out; nothing where no two images belong.

    Of equal similarities both are the means over all their orders.
    """
    precisions, firsts = precisions_and_firsts(vectors, labels, include_self=False)
    asked = ~np.isnan(precisions)  # a class of one image asks for nothing
    if not asked.any():
        return
    yield "retrieval_map", float(precisions[asked].mean())
    yield "top1", float(firsts[asked].mean())
