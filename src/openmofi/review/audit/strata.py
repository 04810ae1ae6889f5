"""A selection -> its strata: how many labels each cell has, and how often it is drawn from.

A label is an (image, entity) of keep.parquet. A cell holds those of one band of entities by
frequency, one source, and one band of scores. Each kind of band cuts the labels at the same shares:

    frequency   the most frequent entities, which have half of the labels; the next, up to nine
                tenths; the long tail, with the last tenth
    score       the surest half; the next, up to nine tenths; the least sure tenth
    source      each host (or shard, without URLs) with a twentieth of the labels; all others

Integers decide everything but the weights, so that any machine finds the same cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.pairs.hosts import hosts_or_shards
from openmofi.review.audit.bound import CellTable

CUTS = (0.5, 0.9)
"""Shares of the labels at which bands end."""
DRAWN = (0.3, 0.25, 0.45)
"""Shares of the draws by frequency, the most frequent entities first."""
BY_SCORE, BY_SOURCE = 0.2, 0.15
"""Shares of a band's draws that go where errors are likely by the scores, and that all sources get
equally. The rest is even: what is drawn rarely weighs much if it is wrong."""
_LEAST_SOURCE = 0.05
_COUNTED_SOURCES = 1000
_SCORES = 10_000
"""Bins of the scores."""
_ROWS = 100_000


@dataclass(frozen=True)
class Stratum:
    """A part of the selection that has a bound of its own."""

    kind: str
    """overall, frequency, score or source."""
    name: str
    cells: np.ndarray
    """bool, which cells it has."""


@dataclass(frozen=True)
class Strata:
    """The cells of a selection; a cell is (frequency * sources + source) * 3 + score."""

    table: CellTable
    names: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    """Of the bands of frequency, the sources, and the bands of scores."""

    def all(self) -> list[Stratum]:
        """Returns the strata that have labels, the whole first."""
        shape = tuple(len(names) for names in self.names)
        places = np.indices(shape).reshape(3, -1)
        found = [Stratum("overall", "all labels", np.ones(len(self.table.labels), bool))]
        for kind, names, place in zip(("frequency", "source", "score"), self.names, places):  # noqa: B905
            if len(names) > 1:
                found += [Stratum(kind, name, place == i) for i, name in enumerate(names)]
        return [stratum for stratum in found if self.table.labels[stratum.cells].sum()]


@dataclass(frozen=True)
class LabelBatch:
    """Consecutive labels of keep.parquet; one element per label."""

    first: int
    """Number of the first of them in the selection."""
    row: np.ndarray
    """Row of keep.parquet."""
    place: np.ndarray
    """Position among the image's labels."""
    klass: np.ndarray
    bin: np.ndarray
    """Of its score."""
    source: pa.Array


@dataclass(frozen=True)
class Bands:
    """Into which cell a label falls."""

    of_class: np.ndarray
    of_bin: np.ndarray
    sources: pa.Array
    """Those with cells of their own."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of bands of frequency, of sources with «others», and of bands of scores."""
        return len(CUTS) + 1, len(self.sources) + 1, len(CUTS) + 1

    def cells(self, labels: LabelBatch) -> np.ndarray:
        """Returns the cell of each label."""
        source = pc.index_in(labels.source, self.sources).fill_null(len(self.sources)).to_numpy()
        bands = self.of_class[labels.klass], source, self.of_bin[labels.bin]
        return np.ravel_multi_index(bands, self.shape)


def read_labels(folder: Path) -> Iterator[LabelBatch]:
    """Yields the labels of a selection in order."""
    first = first_row = 0
    with pq.ParquetFile(folder / "keep.parquet") as file:
        for batch in file.iter_batches(_ROWS, columns=["classes", "scores", "url", "shard"]):
            counts = pc.list_value_length(batch["classes"]).to_numpy()
            row = np.repeat(np.arange(len(batch)), counts)
            begins = np.cumsum(counts) - counts
            scores = batch["scores"].flatten().fill_null(0).to_numpy().astype(np.float64)
            yield LabelBatch(
                first,
                row + first_row,
                np.arange(len(row)) - begins[row],
                batch["classes"].flatten().to_numpy(),
                np.clip(np.nan_to_num(scores) * _SCORES, 0, _SCORES - 1).astype(np.int64),
                hosts_or_shards(batch["url"], batch["shard"]).take(pa.array(row)),
            )
            first, first_row = first + len(row), first_row + len(batch)


def find_bands(folder: Path, images: np.ndarray) -> tuple[Bands, np.ndarray]:
    """Reads the labels once; returns (the bands, the number of labels in each bin of scores).

    Args:
        folder: output of `select`.
        images: labels of each class, most first.
    """
    bins = np.zeros(_SCORES, np.int64)
    sources: Counter[str] = Counter()
    for labels in read_labels(folder):
        bins += np.bincount(labels.bin, minlength=_SCORES)
        for found in pc.value_counts(labels.source).to_pylist():
            sources[found["values"]] += found["counts"]
        sources = _most_common(sources)
    total = int(bins.sum())
    named = [name for name, count in sorted(sources.items()) if count >= _LEAST_SOURCE * total]
    if len(named) == 1 and sources[named[0]] == total:
        named = []
    return Bands(_band(images), _band(bins[::-1])[::-1], pa.array(named, pa.string())), bins


def _most_common(counts: Counter[str]) -> Counter[str]:
    """Returns what is left of counts if few are kept (Misra and Gries 1982).

    A source with more than one in _COUNTED_SOURCES of the labels is not lost, and no other counts
    for more than it has.
    """
    if len(counts) <= _COUNTED_SOURCES:
        return counts
    least = sorted(counts.values(), reverse=True)[_COUNTED_SOURCES]
    return Counter({name: n - least for name, n in counts.items() if n > least})


def _band(counts: np.ndarray) -> np.ndarray:
    """Returns the band of each element, by the share of all that its middle has before it."""
    twice = 2 * np.cumsum(counts) - counts
    ends = [2 * cut * counts.sum() for cut in CUTS]
    return np.searchsorted(ends, twice, "left")


def weigh(bands: Bands, labels: np.ndarray, bins: np.ndarray, images: np.ndarray) -> Strata:
    """Returns the strata with the weights of their labels.

    Every band of frequency has its share of the draws.

    Args:
        bands: which cells there are.
        labels: labels of each cell.
        bins: labels in each bin of scores.
        images: labels of each class.
    """
    counts = labels.reshape(bands.shape)
    of_source = counts.sum((0, 2))
    by_source = 1 / (of_source > 0).sum() / np.maximum(of_source / of_source.sum(), 1e-300)
    by_source = np.where(of_source > 0, by_source, 0)[None, :, None]
    spread = _spread(bands.of_bin, bins)[None, None, :]
    raw = 1 - BY_SCORE - BY_SOURCE + BY_SCORE * spread + BY_SOURCE * by_source
    raw = np.broadcast_to(raw, bands.shape)
    drawn = np.array(DRAWN) * (counts.sum((1, 2)) > 0)
    weight = (
        raw * (drawn / drawn.sum() / np.maximum((raw * counts).sum((1, 2)), 1e-300))[:, None, None]
    )
    names = _frequencies(bands, images), (*bands.sources.to_pylist(), "others"), _scores(bands)
    return Strata(
        CellTable(labels, weight.ravel()),
        names if len(bands.sources) else (names[0], ("all",), names[2]),
    )


def _spread(of_bin: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Returns each band's standard deviation of errors by its scores, relative to their mean."""
    right = (np.arange(_SCORES) + 0.5) / _SCORES
    sizes = np.bincount(of_bin, bins, len(CUTS) + 1)
    error = 1 - np.bincount(of_bin, bins * right, len(CUTS) + 1) / np.maximum(sizes, 1)
    error = np.clip(error, 0.001, 0.5)
    deviation = np.sqrt(error * (1 - error))
    return deviation * sizes.sum() / (deviation @ sizes)


def _frequencies(bands: Bands, images: np.ndarray) -> tuple[str, ...]:
    titles = "frequent entities", "entities in between", "long tail"
    names = []
    for number, title in enumerate(titles):
        mine = images[bands.of_class == number]
        names.append(f"{title}, {mine.min():,} to {mine.max():,} images" if len(mine) else title)
    return tuple(names)


def _scores(bands: Bands) -> tuple[str, ...]:
    starts = [int(np.argmax(bands.of_bin <= number)) / _SCORES for number in range(len(CUTS) + 1)]
    return (
        f"score {starts[0]:.4f} or more",
        f"score {starts[1]:.4f} to {starts[0]:.4f}",
        f"score below {starts[1]:.4f}",
    )
