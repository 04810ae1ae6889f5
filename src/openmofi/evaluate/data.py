"""What a benchmark is about: images and what is known of them, however they lie on the disk.

`layouts.open_data` makes one of these from a path. Rows of `places.table` and the tuples beside it
belong together, line by line. By its `layout` the benchmarks know which data is theirs.
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
TEST_SPLITS = ("test", "validation", "valid", "val", "dev")
"""Names of splits that are evaluated, the best first; the gallery is train."""


@dataclass(frozen=True)
class LabelledImages:
    """Images with their true labels."""

    places: Places
    labels: tuple[str, ...]
    """Label of each row of places.table."""
    gallery: LabelledImages | None = None
    """Labelled images that a classifier may look at, such as a training split."""
    class_names: Mapping[str, str] = field(default_factory=dict)
    """Label -> what the class is called, where the data says so."""
    templates: tuple[str, ...] = ()
    """Texts with {c} in place of a class name, where the data brings its own."""
    layout: str = "labelled"
    """labelled, world or gpr1200."""

    @property
    def classes(self) -> list[str]:
        """All classes: as the data names them, else the labels that occur here or in the gallery.

        Labels are sorted, numbers by their value, so that the tenth class is not the second.
        """
        found = {*self.labels, *(self.gallery.labels if self.gallery else ())}
        return list(self.class_names) if found <= self.class_names.keys() else in_order(found)

    def codes(self, classes: list[str]) -> np.ndarray:
        """Returns each image's position in `classes`, which must hold its label."""
        position = {label: i for i, label in enumerate(classes)}
        return np.array([position[label] for label in self.labels], dtype=np.int64)


def in_order(labels: Iterable[str]) -> list[str]:
    """Returns labels sorted, numbers by their value."""
    labels = list(labels)
    numeric = all(label.isdecimal() for label in labels)
    return sorted(labels, key=(lambda label: (int(label), label)) if numeric else None)


@dataclass(frozen=True)
class CaptionedImages:
    """Images with the texts that describe them, one or several each."""

    places: Places
    captions: tuple[tuple[str, ...], ...]
    layout: ClassVar[str] = "captions"
    classes: ClassVar[Sequence[str]] = ()


@dataclass(frozen=True)
class AttackedImages:
    """Images of one thing on which the name of another is written."""

    places: Places
    objects: tuple[str, ...]
    """What each image shows."""
    words: tuple[str, ...]
    """What is written on it; "" for an image without an attack."""
    groups: tuple[str, ...]
    """Part of the benchmark that each image belongs to, such as SCAM or NoSCAM."""
    layout: ClassVar[str] = "attacks"

    @property
    def classes(self) -> list[str]:
        """All that an image shows or bears."""
        return sorted({*self.objects, *(word for word in self.words if word)})

    def take(self, rows: np.ndarray) -> AttackedImages:
        """Returns some of the images."""
        places = replace(self.places, table=self.places.table.take(pa.array(rows)))
        several = (self.objects, self.words, self.groups)
        return AttackedImages(places, *(tuple(part[row] for row in rows) for part in several))


def file_places(
    root: Path, files: Sequence[str], *, crops: Sequence[Sequence[float]] | None = None
) -> Places:
    """Returns places of files below a folder; their keys are their names.

    Args:
        root: the folder.
        files: relative to it.
        crops: part of each image that counts: left, upper, right, lower, in pixels.
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
