"""GPR1200 (Schall et al. 2021): 12,000 images in class order -> mAP, overall and by domain.

Every image is a query against all 12,000, itself included, so each has 10 positives. The images
are named <class>_<anything>.<suffix>, with classes from 0 to 1199. The official code leaves the
order of equal similarities to an unstable sort; here mAP is the mean over all orders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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


def gpr1200(vectors: Float[np.ndarray, "12000 dim"]) -> Iterator[tuple[str, float]]:
    """Yields mAP as gpr1200_all, gpr1200_landmarks, ...; see `mean_average_precision`."""
    for name, value in mean_average_precision(vectors).items():
        yield f"gpr1200_{name}", value


def mean_average_precision(embeddings: Float[np.ndarray, "12000 dim"]) -> dict[str, float]:
    """Returns mAP overall, under the key all, and of each domain, under its name.

    Args:
        embeddings: one row per image in class order; rows are normalised here.

    Raises:
        InputError: there are not 12,000 rows, or a row is all zeros or not finite.
    """
    total = NUM_CLASSES * PER_CLASS
    if len(embeddings) != total:
        raise InputError(f"GPR1200 has {total:,} images; got {len(embeddings):,} embeddings.")
    unit = _unit_rows(embeddings)
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    precisions = average_precisions(unit, labels, include_self=True)
    scores = {"all": float(precisions.mean())}
    for domain, classes in DOMAINS.items():
        inside = slice(classes.start * PER_CLASS, classes.stop * PER_CLASS)
        scores[domain] = float(precisions[inside].mean())
    return scores


def _unit_rows(embeddings: Sequence | np.ndarray) -> np.ndarray:
    """Returns normalised float32 rows; refuses rows that are not finite or have no direction."""
    try:
        rows = np.asarray(embeddings)
        kept = rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            "Embeddings of GPR1200 must be numbers, one row per image and all rows equally long."
        ) from error
    if kept.ndim != 2 or not kept.shape[1] or not np.issubdtype(kept.dtype, np.floating):
        raise InputError(
            f"Embeddings of shape {kept.shape} ({kept.dtype}) are not rows of numbers."
        )
    largest = np.maximum(kept.max(1), -kept.min(1))
    if not np.isfinite(largest).all():
        bad = int((~np.isfinite(largest)).sum())
        raise InputError(
            f"{bad} of {len(kept)} embeddings hold NaN or infinity; embed these images again."
        )
    if not largest.all():
        raise InputError(
            f"{int((largest == 0).sum())} of {len(kept)} embeddings are all zeros, the first in "
            f"row {int(largest.argmin())}; embed these images again."
        )
    unit = (kept / largest[:, None]).astype(np.float32, copy=False)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


def class_order(names: Sequence[str]) -> np.ndarray:
    """Returns the positions of the file names in class order, by the number before the first _.

    Args:
        names: file names or paths, in any order.

    Raises:
        InputError: there are not 12,000 names, or not ten for each class from 0 to 1199.
    """
    total = NUM_CLASSES * PER_CLASS
    if len(names) != total:
        raise InputError(f"GPR1200 has {total:,} images; found {len(names):,}.")
    classes = np.empty(total, np.int64)
    for position, name in enumerate(names):
        match = re.match(r"([0-9]{1,9})_", name.rsplit("/", 1)[-1])
        if not match or int(match[1]) >= NUM_CLASSES:
            raise InputError(
                f"{name!r} is not an image of GPR1200; expected <class>_<anything> with a class "
                f"from 0 to {NUM_CLASSES - 1}."
            )
        classes[position] = int(match[1])
    counts = np.bincount(classes, minlength=NUM_CLASSES)
    wrong = np.flatnonzero(counts != PER_CLASS)
    if len(wrong):
        raise InputError(
            f"Class {wrong[0]} of GPR1200 has {counts[wrong[0]]} images, expected {PER_CLASS} "
            f"named {wrong[0]}_<anything>."
        )
    return np.array(sorted(range(total), key=lambda i: (classes[i], names[i])), dtype=np.int64)
