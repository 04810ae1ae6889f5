"""Queries for absent things -> when an index says that nothing in it looks like the query.

Each entity is left out of the index in turn, and asked for: by its name, by its name with its
description, and by some of its images. What such a query scores against the other images is what
a query for something absent scores; against all images, what one for something present does.

The name of another entity of the same name is no query for something absent: all of that name are
left out together. Wrong labels leave some images of an entity in place; means of several nearest
images bear that, the nearest alone does not.

A list of queries labelled by hand replaces the names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import PresenceSettings
from openmofi.errors import InputError
from openmofi.files.tables import read_rows
from openmofi.progress import track
from openmofi.search.changes import set_calibration
from openmofi.search.index import Index
from openmofi.search.presence import (
    BROAD,
    NUM_FEATURES,
    NullScores,
    PresenceCalibration,
    PresenceKind,
    features_of,
)

if TYPE_CHECKING:
    from openmofi.search.query import Searcher

_SAMPLE = 4_000
"""Rows that stand for the index in general."""
_FOLDS = 5
_ROWS_FOR_ALL = 200_000
"""Rows above which fewer entities are asked for, since a query takes longer."""
_FEWEST_ENTITIES = 100
_DEEP = 512
"""Images of an entity above which they are left out while searching, and not afterwards."""
_LEAST = 20
"""Entities without which nothing can be said at a rate of 5%."""
_YES, _NO = {"yes", "true", "1"}, {"no", "false", "0"}


@dataclass(frozen=True)
class PresenceQuery:
    """A query whose truth is known."""

    vector: Float[np.ndarray, " dim"]
    entity: str
    """What it asks for; queries of one entity are in one fold."""
    leave: np.ndarray
    """Rows, in ascending order, without which it asks for something absent."""
    own: int = -1
    """Its row, if it is an image of the index."""
    is_present: bool = True
    is_absent: bool = True
    """Whether it is absent once `leave` are left out."""


def calibrate(
    searcher: Searcher,
    settings: PresenceSettings | None = None,
    *,
    queries: Path | str | None = None,
) -> Index:
    """Learns what queries for absent things score, and stores it; returns the index's new state.

    Args:
        searcher: the index, with the encoder of its texts; without one, only images are asked for.
        settings: the rate, and how much is asked.
        queries: CSV of `query` and `present` (yes or no), or of `query` and `entity`: texts as they
            will be asked, which replace the entities' names.

    Raises:
        InputError: there are too few entities or queries, or a file that cannot be read.
    """
    settings = settings or PresenceSettings()
    index = searcher.index
    rng = np.random.default_rng(random_key(settings.seed, Purpose.PRESENCE))
    live = np.flatnonzero(index.live)
    if not len(live):
        raise InputError(
            f"{str(index.folder)!r} has no images; add some with `openmofi index add`."
        )
    sample = np.sort(rng.permutation(live)[:_SAMPLE])
    entities = _drawn(index, settings, rng)
    asked: dict[PresenceKind, list[PresenceQuery]] = {}
    if queries is not None:
        asked["text"] = _labelled_queries(searcher, Path(queries))
    elif len(entities) >= _LEAST and searcher.reads_texts:
        asked["text"] = _name_queries(searcher, entities)
    if len(entities) >= _LEAST:
        asked["image"] = _image_queries(index, entities, settings, rng)
    vectors = index.vectors(sample)
    nulls = {
        kind: null_scores(index, found, sample, vectors) for kind, found in asked.items() if found
    }
    if not nulls:
        raise InputError(
            f"{str(index.folder)!r} has images of {len(entities)} entities, too few to learn what "
            f"absent things look like; label at least {_LEAST}, or pass --queries queries.csv."
        )
    covariance = np.cov(vectors, rowvar=False, bias=True).astype(np.float32)
    mean = vectors.mean(0, dtype=np.float64).astype(np.float32)
    set_calibration(index, PresenceCalibration(settings.rate, mean, covariance, nulls))
    return Index.open(index.folder)


def _drawn(index: Index, settings: PresenceSettings, rng: np.random.Generator) -> list[str]:
    """Returns the ids of the entities that are asked for."""
    ids = index.entities["id"].to_pylist()
    most = int(settings.max_entities * min(1.0, _ROWS_FOR_ALL / max(index.num_rows, 1)))
    most = max(most, min(_FEWEST_ENTITIES, settings.max_entities))
    return [ids[i] for i in np.sort(rng.permutation(len(ids))[:most]).tolist()]


def _name_queries(searcher: Searcher, entities: Sequence[str]) -> list[PresenceQuery]:
    """Asks for entities by name, and by name and description."""
    index, texts, owners = searcher.index, [], []
    leave: dict[str, np.ndarray] = {}
    known = {entity["id"]: entity for entity in index.entities.to_pylist()}
    same: dict[str, list[str]] = defaultdict(list)
    for entity, about in known.items():
        same[about["label"].casefold()].append(entity)
    for entity in entities:
        label, description = known[entity]["label"], known[entity]["description"]
        if label == entity:
            continue  # it has no name
        leave[entity] = _rows_of(index, same[label.casefold()])
        for text in [label, f"{label}: {description}"][: 2 if description else 1]:
            texts.append(text)
            owners.append(entity)
    if len(leave) < _LEAST:
        return []
    vectors = searcher.encoder.encode_texts(texts)
    return [
        PresenceQuery(vector, owner, leave[owner])
        for vector, owner in zip(vectors, owners, strict=True)
    ]


def _image_queries(
    index: Index, entities: Sequence[str], settings: PresenceSettings, rng: np.random.Generator
) -> list[PresenceQuery]:
    """Asks for entities by some of their images."""
    found = []
    for entity in entities:
        rows = index.rows_of(entity)
        drawn = np.sort(rng.permutation(rows)[: settings.images_per_entity])
        for row, vector in zip(drawn.tolist(), index.vectors(drawn), strict=True):
            # What the image shows besides is not absent either.
            shown = _shown(index, row)
            leave = _rows_of(index, shown)
            is_alone = len(rows) == 1
            found.append(PresenceQuery(_unit(vector), entity, leave, row, not is_alone))
    return found


def _shown(index: Index, row: int) -> list[str]:
    labels = index.labels
    codes = labels.code[labels.begins[row] : labels.begins[row + 1]]
    return [labels.ids[code] for code in codes.tolist()]


def _labelled_queries(searcher: Searcher, path: Path) -> list[PresenceQuery]:
    """Reads texts whose truth is known.

    Raises:
        InputError: the file cannot be read, or a row is not understood.
    """
    index, texts, made = searcher.index, [], []
    none = np.zeros(0, np.int64)
    for row in read_rows(path):
        text = str(row.fields.get("query") or "").strip()
        present = str(row.fields.get("present") or "").strip().casefold()
        entity = str(row.fields.get("entity") or "").strip()
        if row.refused or not text or not (present in _YES | _NO or entity):
            raise InputError(
                f"Line {row.line} of {str(path)!r} is not a labelled query; expected the columns "
                "`query` and `present` (yes or no), or `query` and `entity`."
            )
        texts.append(text)
        if entity:
            rows = index.rows_of(searcher.resolve(entity))
            made.append((entity, rows, len(rows) > 0, True))
        else:
            made.append((f"line {row.line}", none, present in _YES, present in _NO))
    absent = {entity for entity, *_, is_absent in made if is_absent}
    if len(absent) < _LEAST or not any(is_present for *_, is_present, _ in made):
        raise InputError(
            f"{str(path)!r} has queries for {len(absent)} things that are absent or of a known "
            f"entity; expected at least {_LEAST}, and at least one for something present."
        )
    vectors = searcher.encoder.encode_texts(texts)
    return [
        PresenceQuery(vector, entity, rows, is_present=is_present, is_absent=is_absent)
        for vector, (entity, rows, is_present, is_absent) in zip(vectors, made, strict=True)
    ]


# ---- what they score ---------------------------------------------------------------------------


def null_scores(
    index: Index,
    queries: Sequence[PresenceQuery],
    sample: np.ndarray,
    vectors: Float[np.ndarray, "m dim"],
) -> NullScores:
    """Searches for each query with and without what it asks for, and fits the weights.

    Args:
        index: the index.
        queries: queries of one kind.
        sample: rows, in ascending order, that stand for the index in general.
        vectors: their vectors.
    """
    present = np.full((len(queries), NUM_FEATURES), np.nan)
    absent = np.full((len(queries), NUM_FEATURES), np.nan)
    for i, query in enumerate(track(queries, "calibrate", unit="queries")):
        rows, cosines = _nearest(index, query)
        background = vectors @ query.vector
        here = rows != query.own
        if query.is_present and here.any():
            others = background[sample != query.own]
            present[i] = features_of(cosines[here][None, :BROAD], others.mean(), others.std())[0]
        if query.is_absent:
            others = background[~np.isin(sample, query.leave)]
            left = cosines[~np.isin(rows, query.leave)]
            if len(left) and len(others):
                absent[i] = features_of(left[None, :BROAD], others.mean(), others.std())[0]
    of = np.unique([query.entity for query in queries], return_inverse=True)[1]
    fold = of % _FOLDS
    weights = np.stack([_fit(present[fold != f], absent[fold != f]) for f in range(_FOLDS)])
    asked = ~np.isnan(absent[:, 0])
    score = (absent * weights[fold]).sum(1)[asked]
    entity = np.unique(of[asked], return_inverse=True)[1]
    return NullScores(weights, score, fold[asked], entity)


def _nearest(index: Index, query: PresenceQuery) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, cosines), of which enough are left without what the query asks for."""
    if len(query.leave) <= _DEEP:
        return index.nearest(query.vector, k=BROAD + 1 + len(query.leave))[:2]
    near = index.nearest(query.vector, k=BROAD + 1)[:2]
    passing = index.live.copy()
    passing[query.leave] = False
    far = index.nearest(query.vector, k=BROAD, passing=passing)[:2]
    rows, cosines = (np.concatenate(both) for both in zip(near, far, strict=True))
    rows, first = np.unique(rows, return_index=True)
    order = np.lexsort((rows, -cosines[first]))
    return rows[order], cosines[first][order]


def _fit(
    present: Float[np.ndarray, "n 4"], absent: Float[np.ndarray, "n 4"]
) -> Float[np.ndarray, " 4"]:
    """Returns the weights that tell queries for present things from those for absent ones."""
    from sklearn.linear_model import LogisticRegression

    present, absent = (each[~np.isnan(each[:, 0])] for each in (present, absent))
    if not len(present) or not len(absent):
        return np.array([1.0, 0.0, 0.0, 0.0])
    both = np.r_[present, absent]
    scale = both.std(0) + 1e-9
    truth = np.r_[np.ones(len(present)), np.zeros(len(absent))]
    fit = LogisticRegression(class_weight="balanced", max_iter=1_000)
    fit.fit((both - both.mean(0)) / scale, truth)
    return fit.coef_[0] / scale


def _rows_of(index: Index, entities: Sequence[str]) -> np.ndarray:
    return np.unique(np.concatenate([index.rows_of(entity) for entity in entities]))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
