"""Two selections from the same labels files -> which labels are in one of them only.

Rows of both are in the order of the labels, so a label is one number: image and entity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.errors import MismatchError
from openmofi.select.selection import Selection


@dataclass(frozen=True)
class LabelChanges:
    """Labels that one of two selections has; an image is counted over all labels files."""

    added: np.ndarray
    """int64 [n, 2]: image, index into `ids`."""
    removed: np.ndarray
    ids: list[str]
    begins: np.ndarray
    """First image of each labels file."""

    def places(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the labels file and the row in it of images."""
        file = np.searchsorted(self.begins, images, "right") - 1
        return file, images - self.begins[file]


def compare(before: Selection, after: Selection) -> LabelChanges:
    """Returns what changed.

    Raises:
        MismatchError: they are not made from the same labels files.
    """
    names = ("file", "pairs")
    if any(before.shards[name].to_pylist() != after.shards[name].to_pylist() for name in names):
        raise MismatchError(
            f"The labels have changed since {before.folder.name!r} was selected; run `openmofi "
            f"select {before.i2e} --name {before.folder.name}` first."
        )
    pairs = before.shards["pairs"].to_numpy()
    begins = np.cumsum(pairs) - pairs
    both = pa.chunked_array(
        [*before.vocabulary["id"].chunks, *after.vocabulary["id"].chunks], pa.string()
    )
    ids = pc.unique(both)
    old, new = (_labels(selection, begins, ids) for selection in (before, after))
    parts = (
        np.setdiff1d(one, other, assume_unique=True) for one, other in ((new, old), (old, new))
    )
    added, removed = (np.stack(np.divmod(part, max(len(ids), 1)), axis=1) for part in parts)
    return LabelChanges(added, removed, ids.to_pylist(), begins)


def _labels(selection: Selection, begins: np.ndarray, ids: pa.Array) -> np.ndarray:
    """Returns image * len(ids) + entity of every label, sorted."""
    with pq.ParquetFile(selection.folder / "keep.parquet") as file:
        table = file.read(["row", "classes"])
    image = np.repeat(begins, selection.shards["kept"].to_numpy()) + table["row"].to_numpy()
    classes = table["classes"].combine_chunks()
    entity_of = pc.index_in(selection.vocabulary["id"], ids).to_numpy()
    entity = entity_of[classes.flatten().to_numpy()]
    image = np.repeat(image, classes.value_lengths().to_numpy())
    return np.sort(image * len(ids) + entity)
