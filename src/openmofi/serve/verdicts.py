"""Single rows of a selection: an image's labels, and what the selection decided.

In: (shard, row of the shard's labels), or the number of a refused image. Out: `Verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.images.look import fetch
from openmofi.pairs import ImageReader
from openmofi.refused import Refused
from openmofi.select.selection import Selection

_STEP = 7919
"""A prime step, so that successive rows come from many shards."""


@dataclass(frozen=True)
class Verdict:
    """An image's labels (schema.LABELS), and what the selection decided."""

    labels: dict[str, Any]
    """The labels with the scores that the selection used."""
    classes: tuple[str, ...]
    """Ids of the entities for which it is kept."""
    refused_as: str | None
    """Reason of the refusal; None: it is kept."""
    file: int
    """The labels file that it is in, as `Selection.files` counts them."""
    row: int
    """Its row there."""

    @property
    def place(self) -> tuple[Any, ...]:
        """What identifies the image in the input."""
        names = ("shard", "offset", "size", "path", "sha256")
        return tuple(self.labels[name] for name in names)


class Verdicts:
    """The decisions of a selection, with their images."""

    def __init__(self, selection: Selection):
        self.selection = selection
        self._reader = ImageReader(selection.card["input"])

    def of_row(self, shard: str, row: int, key: str) -> Verdict | None:
        """Returns the verdict on an image; None if the selection does not have it any more.

        Args:
            shard: path of the file that contains the image.
            row: row of the labels.
            key: key of the image.

        Raises:
            MismatchError: the shard was labelled again after the selection.
        """
        found = self._labels(shard, row, key)
        if found is None:
            return None
        file, labels = found
        refused = self._found("refused.parquet", "reason", labels, row)
        classes = self._found("keep.parquet", "classes", labels, row)
        if refused is None and classes is None:
            return None
        kept = self.selection.vocabulary["id"].take(pa.array(classes or [], pa.int32())).to_pylist()
        return Verdict(labels, tuple(kept), refused, file, row)

    def refused(self, number: int) -> Verdict:
        """Returns the verdict on a row of refused.parquet."""
        labels = self.selection.refused([number])[0]
        return Verdict(labels, (), labels["reason"], *labels["place"])

    def refused_for(self, reason: str, *, k: int, offset: int) -> list[int]:
        """Returns rows of refused.parquet; neighbours in the result are far apart in the input."""
        rows = self._by_reason.get(reason, np.zeros(0, np.int64))
        step = _STEP if len(rows) % _STEP else 1
        places = np.arange(offset, min(offset + k, len(rows))) * step % max(len(rows), 1)
        return rows[places].tolist()

    @cached_property
    def num_refused(self) -> int:
        """Number of rows of refused.parquet."""
        return pq.read_metadata(self.selection.folder / "refused.parquet").num_rows

    def image(self, labels: dict[str, Any]) -> bytes | Refused:
        """Returns the encoded image of a row of the labels, or a Refused."""
        if labels["offset"] < 0 and not labels["path"]:
            return Refused("no_image")
        return fetch(self._reader.read, labels)

    @cached_property
    def _files(self) -> dict[str, list[int]]:
        """The numbers of the labels files by the path of the file that they label."""
        plan = pq.read_table(self.selection.i2e / "plan.parquet", columns=["name", "path"])
        paths = dict(zip(plan["name"].to_pylist(), plan["path"].to_pylist(), strict=True))
        numbers: dict[str, list[int]] = {}
        for number, name in enumerate(self.selection.shards["shard"].to_pylist()):
            numbers.setdefault(paths[name], []).append(number)
        return numbers

    def _labels(self, shard: str, row: int, key: str) -> tuple[int, dict[str, Any]] | None:
        """Returns (the labels file, an image's labels), or None if no file has it in this row.

        If a large shard was split, several files have such a row.
        """
        pairs = self.selection.shards["pairs"]
        for number in self._files.get(shard, ()):
            if row < pairs[number].as_py():
                labels = self.selection.read(number, [row])[0]
                if labels["key"] == key:
                    return number, labels
        return None

    @cached_property
    def _by_reason(self) -> dict[str, np.ndarray]:
        """The rows of refused.parquet by reason."""
        place = self.selection.reasons()
        order = np.argsort(place, kind="stable")
        names = list(self.selection.card["funnel"]["refused"])
        bounds = np.searchsorted(place[order], np.arange(len(names) + 1))
        return {name: order[bounds[i] : bounds[i + 1]] for i, name in enumerate(names)}

    def _found(self, file: str, column: str, labels: dict[str, Any], row: int) -> Any:
        """Returns a column of a selection's file for an image, or None."""
        at = [("row", "==", row), *((name, "==", labels[name]) for name in ("shard", "key"))]
        table = pq.read_table(self.selection.folder / file, columns=[column], filters=at)
        return table[column][0].as_py() if len(table) else None
