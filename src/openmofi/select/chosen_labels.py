"""All labels files of a job -> flat arrays: the chosen entity of each mention, and its image.

Images are numbered across all files; a label is the (image, entity) that a mention stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.label.score import ScoreWeights
from openmofi.progress import track
from openmofi.select.choose import TaughtPriors, choose

_IMAGE_COLUMNS = ["error", "text_area", "sha256", "phash"]


@dataclass(frozen=True)
class ChosenLabels:
    """One element per mention, in the order of the images."""

    image: np.ndarray
    entity: np.ndarray
    """Index into the ids."""
    score: np.ndarray
    evidence: np.ndarray
    evidence_other: np.ndarray
    confused: np.ndarray
    priors: np.ndarray
    """The last five as in `choose.ChosenCandidates`."""

    def __len__(self) -> int:
        return len(self.image)

    def take(self, index: np.ndarray) -> ChosenLabels:
        """Returns some of the labels, by number or by mask."""
        return ChosenLabels(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class Images:
    """One element per image."""

    error: np.ndarray
    """0 for a valid pair, else 1 + the index of its reason."""
    reasons: list[str]
    text_area: np.ndarray
    """NaN: not measured."""
    digest: np.ndarray
    """uint64 [n, 2]: the first half of the sha256, enough to tell images apart."""
    has_digest: np.ndarray
    phash: np.ndarray
    has_phash: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """The contents of all files."""

    begins: np.ndarray
    """First image of each file, then the number of images."""
    labels: ChosenLabels
    ids: pa.Array
    images: Images

    @property
    def num_images(self) -> int:
        """Pairs of the job, refused ones included."""
        return int(self.begins[-1])


def read_chosen(
    files: Sequence[Path],
    order: str,
    weights: ScoreWeights | None = None,
    priors: TaughtPriors | None = None,
) -> Chosen:
    """Reads labels files and chooses one candidate per mention, see `choose`."""
    choices, tables = [], []
    for path in track(files, "read labels", unit="shards"):
        choices.append(choose(path, order, weights, priors))
        with pq.ParquetFile(path) as file:
            table = file.read(_IMAGE_COLUMNS)
        error = table["error"].combine_chunks().dictionary_encode()
        place = table.schema.get_field_index("error")
        tables.append(table.set_column(place, "error", error))
    begins = np.cumsum([0, *(len(table) for table in tables)])
    ids, entity = _numbered([choice.ids for choice in choices])
    image = [choice.row + begin for choice, begin in zip(choices, begins, strict=False)]
    names = ("score", "evidence", "evidence_other", "confused", "priors")
    scores = (np.concatenate([getattr(choice, name) for choice in choices]) for name in names)
    labels = ChosenLabels(np.concatenate(image), entity, *scores)
    return Chosen(begins, labels, ids, _images(pa.concat_tables(tables)))


def _numbered(parts: list[pa.DictionaryArray]) -> tuple[pa.Array, np.ndarray]:
    """Returns (distinct ids, sorted; each element's index into them)."""
    whole = pa.chunked_array(parts).unify_dictionaries()
    numbers = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in whole.chunks]
    ids = whole.chunk(0).dictionary
    order = pc.sort_indices(ids).to_numpy()
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    return ids.take(pa.array(order)), place[np.concatenate(numbers)]


def _images(table: pa.Table) -> Images:
    error = table["error"].unify_dictionaries()
    reasons, codes = _numbered([chunk for chunk in error.chunks])
    names = [name or "" for name in reasons.to_pylist()]
    sound = np.array([not name for name in names], bool)
    code = np.where(sound[codes], 0, codes + 1) if len(codes) else codes
    digest, has_digest = _digests(table["sha256"])
    return Images(
        code.astype(np.int16),
        names,
        _values(table["text_area"], np.float32),
        digest,
        has_digest,
        _values(table["phash"], np.uint64),
        table["phash"].is_valid().to_numpy(),
    )


def _values(column: pa.ChunkedArray, kind: type) -> np.ndarray:
    fill = float("nan") if kind is np.float32 else 0
    return column.fill_null(fill).to_numpy().astype(kind, copy=False)


def _digests(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the first half of each hash as two integers, whether there is a hash)."""
    halves = []
    for chunk in column.chunks:  # of fixed size: the values are contiguous
        words = np.frombuffer(chunk.buffers()[1], np.uint64) if len(chunk) else np.zeros(0, "u8")
        halves.append(words.reshape(-1, 4)[chunk.offset : chunk.offset + len(chunk), :2])
    whole = np.concatenate(halves) if halves else np.zeros((0, 2), np.uint64)
    return whole, column.is_valid().to_numpy()
