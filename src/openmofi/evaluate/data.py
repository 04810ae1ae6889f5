"""The data of a benchmark: images and what is known about them, however they are stored.

`layouts.open_data` makes one of these from a path. The tuples have one entry for each row of
`places.table`, in its order. A benchmark recognises its data by the `layout`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from openmofi.embed import Places

LABEL_COLUMNS = ("label", "fine_label", "labels", "class", "class_id", "entity", "category")
DOMAIN_COLUMN = "domain"
TEST_SPLITS = ("test", "validation", "valid", "val", "dev")
"""Names of splits that are evaluated, the preferred first; the gallery is train."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their true labels."""

    places: Places
    labels: tuple[str, ...]
    """Label of each row of places.table."""
    gallery: LabelledImages | None = None
    """Labelled images that a classifier may learn from, such as a training split."""
    class_names: Mapping[str, str] = field(default_factory=dict)
    """Label -> name of the class, if the data names its classes."""
    templates: tuple[str, ...] = ()
    """Texts with {c} for the class name, if the data has its own."""
    domains: tuple[str, ...] = ()
    """What kind of data each row is, such as landmarks or products; empty if the data has one."""
    layout: str = "labelled"
    """labelled, world or gpr1200."""

    @property
    def classes(self) -> list[str]:
        """All classes: those that the data names, else the labels of images and gallery, sorted.

        Numbers are sorted by value, so class 10 does not come second.
        """
        found = {*self.labels, *(self.gallery.labels if self.gallery else ())}
        return list(self.class_names) if found <= self.class_names.keys() else in_order(found)

    def codes(self, classes: list[str]) -> np.ndarray:
        """Returns for each image the position of its label in `classes`, which must have it."""
        position = {label: i for i, label in enumerate(classes)}
        return np.array([position[label] for label in self.labels], dtype=np.int64)


def in_order(labels: Iterable[str]) -> list[str]:
    """Returns labels sorted, numbers by value."""
    labels = list(labels)
    numeric = all(label.isdecimal() for label in labels)
    return sorted(labels, key=(lambda label: (int(label), label)) if numeric else None)


@dataclass(frozen=True)
class CaptionedImages:
    """Images, each with one or several texts that describe it."""

    places: Places
    captions: tuple[tuple[str, ...], ...]
    layout: ClassVar[str] = "captions"
    classes: ClassVar[Sequence[str]] = ()


@dataclass(frozen=True)
class AttackedImages:
    """Images of one thing with the name of another written on them."""

    places: Places
    objects: tuple[str, ...]
    """What each image shows."""
    words: tuple[str, ...]
    """What is written on it; "" for an image without an attack."""
    groups: tuple[str, ...]
    """The part of the benchmark that each image belongs to, such as SCAM or NoSCAM."""
    layout: ClassVar[str] = "attacks"

    @property
    def classes(self) -> list[str]:
        """Everything that an image shows or has written on it."""
        return sorted({*self.objects, *(word for word in self.words if word)})

    def take(self, rows: np.ndarray) -> AttackedImages:
        """Returns the images of some rows."""
        places = replace(self.places, table=self.places.table.take(pa.array(rows)))
        several = (self.objects, self.words, self.groups)
        return AttackedImages(places, *(tuple(part[row] for row in rows) for part in several))


def file_places(
    root: Path, files: Sequence[str], *, crops: Sequence[Sequence[float]] | None = None
) -> Places:
    """Returns the places of files below a folder; their keys are the file names.

    Args:
        root: the folder.
        files: paths relative to it.
        crops: the part of each image to use: left, upper, right, lower, in pixels.
    """
    count = len(files)
    columns = {
        "key": pa.array(files, pa.string()),
        "shard": pa.array([""] * count, pa.string()),
        "path": pa.array(files, pa.string()),
        "offset": pa.array([-1] * count, pa.int64()),
        "size": pa.array([0] * count, pa.int64()),
        "caption": pa.array([""] * count, pa.string()),
        "entities": pa.array([[]] * count, pa.list_(pa.string())),
    }
    if crops is not None:
        boxes = [[float(v) for v in crop] for crop in crops]
        columns["crop"] = pa.array(boxes, pa.list_(pa.float64()))
    return Places(pa.table(columns), root, {})
