"""A selection and a seed -> the labels to check, in order.

Each label gets a random number u of its own, keyed by the seed, by what is in the selection, and by
its place there, and is drawn at the time -ln(u) / weight. In the order of their times, labels come
without replacement, each next one with a probability in proportion to its weight among those that
are left (Efraimidis and Spirakis 2006). So more checks continue the same list, and who has the
selection and the seed finds the same list. The labels are read twice, and never held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.review.audit.strata import Strata, find_bands, read_labels, weigh
from openmofi.select.selection import rows_at

_COLUMNS = ["key", "shard", "offset", "size", "path", "caption", "url", "classes", "scores"]
_MOST_HELD = 4
"""Labels held per check and cell, before those that can no longer be drawn are dropped."""


@dataclass(frozen=True)
class Draw:
    """A label to check."""

    number: int
    """From 1."""
    cell: int
    row: int
    """Row of keep.parquet."""
    key: str
    shard: str
    entity: str
    """Id."""
    name: str
    description: str
    images: int
    """Of the entity, in the selection."""
    score: float
    caption: str
    url: str
    where: dict[str, Any]
    """Where the image lies, for `ImageReader.read`."""

    def names(self) -> dict[str, str]:
        """Returns what an answer is recognised by."""
        return {"shard": self.shard, "key": self.key, "entity": self.entity}


@dataclass(frozen=True)
class _Times:
    """Labels with the times at which they would be drawn if they had the weight 1."""

    cell: np.ndarray
    time: np.ndarray
    label: np.ndarray
    row: np.ndarray
    place: np.ndarray

    def take(self, index: np.ndarray) -> _Times:
        return _Times(*(column[index] for column in vars(self).values()))

    def first(self, count: int) -> _Times:
        """Returns the earliest of each cell."""
        mine = self.take(np.lexsort((self.label, self.time, self.cell)))
        begins = np.searchsorted(mine.cell, mine.cell, "left")
        return mine.take(np.flatnonzero(np.arange(len(begins)) - begins < count))


def draw(folder: Path, digest: str, *, seed: int, checks: int) -> tuple[Strata, list[Draw]]:
    """Returns the strata of a selection, and the first labels to check.

    Args:
        folder: output of `select`.
        digest: what `selection_digest` says of it.
        seed: any integer.
        checks: how many; all labels if there are no more.
    """
    vocabulary = pq.read_table(folder / "vocabulary.parquet")
    images = vocabulary["images"].to_numpy()
    bands, bins = find_bands(folder, images)
    counts = np.zeros(np.prod(bands.shape), np.int64)
    state = random_key(seed, Purpose.AUDIT, int(digest, 16))
    parts: list[_Times] = []
    limits = np.full(len(counts), np.inf)
    for labels in read_labels(folder):
        cell = bands.cells(labels)
        counts += np.bincount(cell, minlength=len(counts))
        number = labels.first + np.arange(len(cell))
        times = _times(state, number)
        early = np.flatnonzero(times <= limits[cell])
        columns = (cell, times, number, labels.row, labels.place)
        parts.append(_Times(*(column[early] for column in columns)))
        if sum(len(part.cell) for part in parts) > _MOST_HELD * checks * len(counts):
            parts = [_joined(parts).first(checks)]
            limits = _limits(parts[0], checks, len(counts))
    strata = weigh(bands, counts, bins, images)
    found = _joined(parts).first(checks)
    drawn = found.time / strata.table.weight[found.cell]
    found = found.take(np.lexsort((found.label, drawn))[:checks])
    return strata, _described(folder, found, vocabulary)


def _times(state: int, label: np.ndarray) -> np.ndarray:
    bits = mix_words(state, label.astype(np.uint64))
    return -np.log(((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


def _joined(parts: list[_Times]) -> _Times:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return _Times(*(np.concatenate(column) for column in columns))


def _limits(earliest: _Times, count: int, num_cells: int) -> np.ndarray:
    """Returns the time of each cell after which no label can be among its earliest."""
    sizes = np.bincount(earliest.cell, minlength=num_cells)
    last = np.zeros(num_cells)
    np.maximum.at(last, earliest.cell, earliest.time)
    return np.where(sizes < count, np.inf, last)


def _described(folder: Path, found: _Times, vocabulary: pa.Table) -> list[Draw]:
    rows = rows_at(folder / "keep.parquet", found.row.tolist(), _COLUMNS)
    places = found.place.tolist()
    classes = [row["classes"][place] for row, place in zip(rows, places, strict=True)]
    entities = vocabulary.take(pa.array(classes, pa.int64())).to_pylist()
    return [
        Draw(
            number=number,
            cell=cell,
            row=at,
            entity=entity["id"],
            name=entity["label"],
            description=entity["description"] or "",
            images=entity["images"],
            score=row["scores"][place],
            caption=row["caption"] or "",
            where={name: row[name] for name in ("shard", "offset", "size", "path")},
            **{name: row[name] or "" for name in ("key", "shard", "url")},
        )
        for number, cell, at, place, row, entity in zip(
            range(1, len(rows) + 1),
            found.cell.tolist(),
            found.row.tolist(),
            places,
            rows,
            entities,
            strict=True,
        )
    ]
