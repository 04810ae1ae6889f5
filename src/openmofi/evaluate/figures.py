"""What a report shows of one dataset: searches, worst queries, confusions, the nearest images.

Everything is drawn from at most 20,000 evenly spaced images, which keeps a report small.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.embed import Places
from openmofi.evaluate.data import CaptionedImages, LabelledImages
from openmofi.evaluate.measure import Measured
from openmofi.evaluate.metrics import average_precisions, nearest
from openmofi.evaluate.revisited import RevisitedImages
from openmofi.evaluate.svg import short, svg
from openmofi.images.thumbnails import thumbnail
from openmofi.pairs import ImageReader

_MOST_IMAGES = 20_000
_QUERIES, _WORST, _NEIGHBOURS, _TEXTS, _TOP1 = 10, 8, 6, 3, 12
_PAIRS, _MATRIX = 10, 24


@dataclass(frozen=True)
class Sample:
    """The images that the figures are drawn from."""

    vectors: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    """Rows of the dataset's table."""
    predicted: np.ndarray | None
    names: tuple[str, ...]
    dataset: LabelledImages
    domains: tuple[str, ...]
    """Of each image; empty if the data has none."""


def sample(measured: Measured) -> Sample:
    """Returns at most 20,000 of the encoded images, evenly spaced."""
    dataset, encoded = measured.dataset, measured.encoded
    assert isinstance(dataset, LabelledImages)
    total = len(encoded.rows)
    chosen = np.unique(np.linspace(0, total - 1, min(total, _MOST_IMAGES)).astype(np.int64))
    names = measured.names or tuple(dataset.classes)
    return Sample(
        encoded.vectors[chosen],
        dataset.codes(dataset.classes)[encoded.rows[chosen]],
        encoded.rows[chosen],
        None if measured.predicted is None else measured.predicted[chosen],
        names,
        dataset,
        tuple(dataset.domains[row] for row in encoded.rows[chosen]) if dataset.domains else (),
    )


class Album:
    """Thumbnails of a dataset's images, each drawn once."""

    def __init__(self, places: Places):
        self._table, self._reader = places.table, ImageReader(places.root)
        self._urls: dict[int, str] = {}

    def card(self, row: int, name: str, kind: str = "") -> dict[str, str]:
        """Returns what the page shows of an image; `kind` is right, wrong, junk or empty."""
        if row not in self._urls:
            place = self._table.take(pa.array([row])).to_pylist()[0]
            self._urls[row] = thumbnail(self._reader.read, place, side=88)
        return {"url": self._urls[row], "name": name, "kind": kind}


@dataclass(frozen=True)
class LabelledAlbum:
    """The images of a sample with the names of their classes."""

    shown: Sample
    album: Album

    def card(self, number: int, query: int | None = None) -> dict[str, str]:
        """Returns an image's card, marked as right if it has the query's class, else as wrong."""
        labels, kind = self.shown.labels, ""
        if query is not None:
            kind = "right" if labels[number] == labels[query] else "wrong"
        name = self.shown.names[int(labels[number])]
        if self.shown.domains:
            name = f"{self.shown.domains[number]}: {name}"
        return self.album.card(int(self.shown.rows[number]), name, kind)


def top1(shown: Sample, album: LabelledAlbum) -> Iterator[dict[str, Any]]:
    """Yields evenly spaced queries with the image that is most similar, as in figure 4 of MOFI.

    Of GPR1200 there are two queries from each of the six domains.
    """
    queries = np.unique(np.linspace(0, len(shown.labels) - 1, _TOP1).astype(np.int64))
    found, _ = nearest(shown.vectors[queries], shown.vectors, min(2, len(shown.labels)), same=False)
    for query, row in zip(queries.tolist(), found.tolist(), strict=True):
        other = next(number for number in row if number != query)
        place = shown.dataset.places.table.slice(int(shown.rows[query]), 1).to_pylist()[0]
        key = f"{place['shard']}#{place['path']}#{place['offset']}"
        yield {"key": key, "query": album.card(query), "found": album.card(other, query)}


def revisited_top1(measured: Measured) -> Iterator[dict[str, Any]]:
    """Yields queries of ROxford or RParis with the most similar image that is no junk."""
    dataset, queries = measured.dataset, measured.queries
    assert isinstance(dataset, RevisitedImages)
    assert queries is not None
    asked, gallery = Album(dataset.queries), Album(dataset.gallery)
    for query in np.unique(np.linspace(0, len(queries) - 1, _TOP1).astype(np.int64)).tolist():
        truth = dataset.truth.queries[query]
        similarity = measured.encoded.vectors @ queries[query]
        similarity[truth.junk] = -np.inf
        row = int(similarity.argmax())
        kind = "right" if row in {*truth.easy, *truth.hard} else "wrong"
        found = gallery.card(row, dataset.truth.gallery[row], kind)
        key, card = f"{truth.name} {query}", asked.card(query, truth.name)
        yield {"key": key, "query": card, "found": found}


def searches(shown: Sample, album: LabelledAlbum) -> Iterator[dict[str, Any]]:
    """Yields evenly spaced queries with their nearest images."""
    count = len(shown.labels)
    queries = np.unique(np.linspace(0, count - 1, _QUERIES).astype(np.int64))
    yield from _with_neighbours(shown, album, queries)


def revisited_searches(measured: Measured) -> Iterator[dict[str, Any]]:
    """Yields queries of ROxford or RParis with their nearest images: right, wrong or junk."""
    dataset, queries = measured.dataset, measured.queries
    assert isinstance(dataset, RevisitedImages)
    assert queries is not None
    asked, gallery = Album(dataset.queries), Album(dataset.gallery)
    chosen = np.unique(np.linspace(0, len(queries) - 1, _QUERIES).astype(np.int64))
    found, _ = nearest(queries[chosen], measured.encoded.vectors, _NEIGHBOURS, same=False)
    for query, rows in zip(chosen.tolist(), found.tolist(), strict=True):
        truth = dataset.truth.queries[query]
        kinds = {int(row): "junk" for row in truth.junk}
        kinds |= {int(row): "right" for part in (truth.easy, truth.hard) for row in part}
        cards = [
            gallery.card(row, dataset.truth.gallery[row], kinds.get(row, "wrong")) for row in rows
        ]
        yield {"query": asked.card(query, truth.name), "found": cards}


def caption_searches(measured: Measured) -> Iterator[dict[str, Any]]:
    """Yields images with the texts nearest to them."""
    dataset, texts = measured.dataset, measured.queries
    assert isinstance(dataset, CaptionedImages)
    assert texts is not None
    album, rows = Album(dataset.places), measured.encoded.rows
    written = [(int(row), text) for row in rows for text in dataset.captions[row]]
    chosen = np.unique(np.linspace(0, len(rows) - 1, _QUERIES).astype(np.int64))
    found, _ = nearest(measured.encoded.vectors[chosen], texts, _TEXTS, same=False)
    for row, near in zip(rows[chosen].tolist(), found.tolist(), strict=True):
        answers = [
            {"text": written[text][1], "kind": "right" if written[text][0] == row else "wrong"}
            for text in near
        ]
        yield {"image": album.card(row, ""), "texts": answers}


def worst_queries(shown: Sample, album: LabelledAlbum) -> Iterator[dict[str, Any]]:
    """Yields the queries of lowest average precision, worst first, without perfect ones."""
    precisions = average_precisions(shown.vectors, shown.labels, include_self=False)
    asked = np.flatnonzero(precisions < 1 - 1e-9)  # also drops queries without a positive: NaN
    worst = asked[np.argsort(precisions[asked], kind="stable")][:_WORST]
    for found, query in zip(_with_neighbours(shown, album, worst), worst, strict=True):
        yield found | {"precision": float(precisions[query])}


def _with_neighbours(
    shown: Sample, album: LabelledAlbum, queries: np.ndarray
) -> Iterator[dict[str, Any]]:
    k = min(_NEIGHBOURS + 1, len(shown.labels))
    found, _ = nearest(shown.vectors[queries], shown.vectors, k, same=False)
    for query, row in zip(queries.tolist(), found.tolist(), strict=True):
        others = [number for number in row if number != query][:_NEIGHBOURS]
        cards = [album.card(number, query) for number in others]
        yield {"query": album.card(query), "found": cards}


def answers(shown: Sample) -> tuple[np.ndarray, str]:
    """Returns (the predicted class of each image, how it was found)."""
    if shown.predicted is not None:
        return shown.predicted, "the class whose text is nearest (zero-shot)"
    first, _ = nearest(shown.vectors, shown.vectors, 1, same=True)
    return shown.labels[first[:, 0]], "the class of the nearest other image"


def confusions(shown: Sample, album: LabelledAlbum) -> list[dict[str, Any]]:
    """Returns the most common pairs of true class and wrong answer, with an image of each."""
    given, _ = answers(shown)
    wrong = np.flatnonzero(given != shown.labels)
    pairs, counts = np.unique(
        np.stack([shown.labels[wrong], given[wrong]], 1), axis=0, return_counts=True
    )
    result = []
    for pair in np.argsort(-counts, kind="stable")[:_PAIRS]:
        true, other = pairs[pair]
        mistaken = wrong[(shown.labels[wrong] == true) & (given[wrong] == other)][0]
        example = np.flatnonzero(shown.labels == other)
        result.append(
            {
                "count": int(counts[pair]),
                "of": int((shown.labels == true).sum()),
                "mistaken": album.card(int(mistaken)),
                "other": album.card(int(example[0])) if len(example) else None,
                "other_name": shown.names[int(other)],
            }
        )
    return result


def confusion_matrix(shown: Sample) -> str:
    """Returns a matrix of the most confused classes as SVG: rows are true, columns are answers."""
    given, _ = answers(shown)
    wrong = given != shown.labels
    involved = np.bincount(shown.labels[wrong], minlength=len(shown.names))
    involved += np.bincount(given[wrong], minlength=len(shown.names))
    classes = np.argsort(-involved, kind="stable")[:_MATRIX]
    classes = np.sort(classes[involved[classes] > 0])
    if not len(classes):
        return ""
    parts, cell, left, top = [], 18, 150, 120
    for i, true in enumerate(classes):
        name = html.escape(short(shown.names[true]))
        y, x = top + i * cell, left + i * cell
        parts.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{name}</text>')
        parts.append(
            f'<text transform="translate({x + 12},{top - 6}) rotate(-60)" x="0" y="0">{name}</text>'
        )
        mine = given[shown.labels == true]
        for j, other in enumerate(classes):
            share = float((mine == other).mean()) if len(mine) else 0.0
            if share:
                kind = "right" if true == other else "wrong"
                title = f"{shown.names[true]} answered as {shown.names[other]}: {share:.0%}"
                parts.append(
                    f'<rect class="{kind}" x="{left + j * cell}" y="{y}" width="{cell - 1}" '
                    f'height="{cell - 1}" opacity="{0.15 + 0.85 * share:.2f}">'
                    f"<title>{html.escape(title)}</title></rect>"
                )
    side = len(classes) * cell
    return svg(parts, left + side + 60, top + side + 6, "Confusions between classes")
