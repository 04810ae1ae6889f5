"""Collects what was seen of a shard's images, and makes the table of labels from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.images.look import SeenImage
from openmofi.label.text_regions import Regions
from openmofi.refused import Refused
from openmofi.schema import ENCODERS, FUSION, KB_PRIOR, LABELS, SCORED_ENTITY

_FROM_LINKER = ("start", "end", "surface", "prior", "context", "coherence", "type", "linkability")


class Seen:
    """What was seen of some rows' images, one place per row."""

    def __init__(self, count: int, dim: int):
        self.error = [""] * count
        self.vectors = np.zeros((count, dim), dtype=np.float32)
        self._images: dict[str, list] = {
            name: [None] * count
            for name in ("width", "height", "text_area", "text_boxes", "sha256", "phash")
        }

    def note(self, place: int, image: SeenImage | Refused, regions: Regions | None) -> None:
        """Stores the table's values for an image and its text, or why it was refused."""
        if isinstance(image, Refused):
            self.error[place] = image.reason
            return
        columns = self._images
        columns["width"][place], columns["height"][place] = image.size
        columns["sha256"][place], columns["phash"][place] = image.sha256, image.phash
        if regions is not None:
            columns["text_area"][place] = regions.area
            columns["text_boxes"][place] = regions.boxes

    def recall(self, place: int, values: dict[str, Any]) -> None:
        """Stores the table's values for an image that an earlier job saw."""
        for name, column in self._images.items():
            column[place] = values[name]

    @property
    def readable(self) -> np.ndarray:
        """Which images could be decoded."""
        return np.array([not error for error in self.error], dtype=bool)

    @property
    def words(self) -> np.ndarray:
        """64 bits of the sha256 of each image's bytes; 0 where it could not be decoded."""
        digests = [digest or bytes(8) for digest in self._images["sha256"]]
        return np.frombuffer(b"".join(digest[:8] for digest in digests), "<u8")

    def column(self, name: str, rows: np.ndarray, count: int) -> pa.Array:
        """Returns a column for a table of `count` rows; null where no image was opened."""
        place = np.full(count, -1)
        place[rows] = np.arange(len(rows))
        values = pa.array(self._images[name], LABELS.field(name).type)
        return values.take(pa.array(place, mask=place < 0))

    def embeddings(self, keys: pa.ChunkedArray, rows: np.ndarray) -> pa.Table:
        """Returns key and vector (fp16) of every row of the shard; null without an image."""
        place = np.full(len(keys), -1)
        place[rows] = np.where(self.readable, np.arange(len(rows)), -1)
        halves = pa.array(self.vectors.astype(np.float16).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(halves, self.vectors.shape[1])
        return pa.table({"key": keys, "vector": vectors.take(pa.array(place, mask=place < 0))})


def labels_table(
    pairs: pa.Table,
    rows: np.ndarray,
    seen: Seen,
    candidates: pa.Table,
    terms: dict[str, np.ndarray],
) -> pa.Table:
    """Returns `schema.LABELS` of a shard, with what else the candidates have of `schema`.

    Args:
        pairs: all pairs of the shard.
        rows: the rows whose images were opened.
        seen: what was seen of these images.
        candidates: the candidates of readable images, with their `place` among `rows`.
        terms: the image's terms of each candidate.
    """
    error = np.array(pairs["error"].to_pylist(), dtype=object)
    error[rows] = seen.error
    columns = {name: pairs[name] for name in pairs.column_names}
    columns["error"] = pa.array(error, pa.string())
    columns["status"] = pa.array(np.where(error == "", "ok", "error"), pa.string())
    for name in ("width", "height", "text_area", "text_boxes", "sha256", "phash"):
        columns[name] = seen.column(name, rows, len(pairs))

    entity = {name: candidates[name].combine_chunks() for name in ("id", "case", *_FROM_LINKER)}
    entity["text_score"] = candidates["score"].combine_chunks()
    for name, values in terms.items():
        entity[name] = _numbers(values.astype(np.float32))
    if ENCODERS.name in terms:
        candidates = candidates.append_column(ENCODERS, entity[ENCODERS.name].cast(ENCODERS.type))
    fields, schema = list(SCORED_ENTITY), LABELS
    if more := [
        field for field in (KB_PRIOR, FUSION, ENCODERS) if field.name in candidates.column_names
    ]:
        fields += more
        entity |= {field.name: candidates[field.name].combine_chunks() for field in more}
        place = LABELS.get_field_index("entities")
        schema = LABELS.set(place, pa.field("entities", pa.list_(pa.struct(fields))))
    arrays = [entity[field.name].cast(field.type) for field in fields]
    count = np.bincount(rows[candidates["place"].to_numpy()], minlength=len(pairs))
    offsets = pa.array(np.r_[0, np.cumsum(count)], pa.int32())
    entities = pa.StructArray.from_arrays(arrays, fields=fields)
    columns["entities"] = pa.ListArray.from_arrays(offsets, entities)
    return pa.table(columns, schema=schema)


def _numbers(values: np.ndarray) -> pa.Array:
    """Returns floats with null for NaN; for two dimensions, lists of the values except NaN."""
    known = ~np.isnan(values)
    if values.ndim == 1:
        return pa.array(values, mask=~known)
    offsets = pa.array(np.r_[0, np.cumsum(known.sum(1))], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values[known]))
