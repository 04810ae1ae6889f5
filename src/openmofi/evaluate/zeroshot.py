"""Zero-shot classification: class texts, normalised, averaged, normalised (CLIP's protocol)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from openmofi.model import MofiModel

TEMPLATES = ("{name}: {description}", "a photo of {name}, {description}")
"""Names alone would not do: India is a country and a signal flag."""


def class_vectors(
    model: MofiModel, names: Sequence[str], descriptions: Sequence[str]
) -> np.ndarray:
    """Returns one unit vector per class, [classes, dim]."""
    sums = np.zeros((len(names), model.dim), dtype=np.float32)
    for template in TEMPLATES:
        texts = [
            template.format(name=name, description=text) if text else name
            for name, text in zip(names, descriptions, strict=True)
        ]
        sums += model.encode_texts(texts)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def zero_shot(
    vectors: np.ndarray, labels: np.ndarray, classes: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yields the accuracy of the nearest class text; `labels` are rows of `classes`."""
    yield "zero_shot", float(((vectors @ classes.T).argmax(1) == labels).mean())
