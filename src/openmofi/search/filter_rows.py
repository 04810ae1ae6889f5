"""A filter and an index -> the rows that pass, and facet counts of rows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.search.filters import Filter
from openmofi.search.snapshot import Snapshot

_MOST_FACETS = 50


def passing_rows(index: Snapshot, filter: Filter) -> np.ndarray:
    """Returns whether each row passes, deleted ones included.

    Raises:
        InputError: the filter has a lasso, but the index has no map.
    """
    labels = index.labels
    passing = np.ones(index.num_rows, bool)
    sure = np.ones(len(labels.row), bool)
    if filter.min_label_score is not None:
        with np.errstate(invalid="ignore"):
            sure = labels.score >= filter.min_label_score
        passing &= labels.rows_with(sure)
    if filter.entities:
        passing &= labels.rows_with(sure & np.isin(labels.code, labels.codes(filter.entities)))
    if filter.types:
        of_type = np.isin(labels.code, index.types.having(filter.types))
        passing &= labels.rows_with(sure & of_type)
    if filter.not_entities:
        passing &= ~labels.rows_with(np.isin(labels.code, labels.codes(filter.not_entities)))
    if filter.sources:
        wanted = pa.array(filter.sources, pa.string())
        passing &= pc.is_in(index.rows["source"], value_set=wanted).to_numpy()
    if filter.max_text_area is not None:
        area = index.rows["text_area"].to_numpy()
        with np.errstate(invalid="ignore"):
            passing &= area <= filter.max_text_area
    if filter.lasso:
        passing &= _inside(index, filter.lasso)
    return passing


def count_facets(index: Snapshot, rows: np.ndarray) -> dict[str, list[tuple[str, int]]]:
    """Returns the number of rows with each entity, type and source, the most frequent first."""
    labels, types = index.labels, index.types
    positions = labels.of_rows(rows)
    codes = labels.code[positions]
    images = np.bincount(codes, minlength=len(labels.ids))
    which, kind = types.of(codes)
    row_and_type = np.unique(np.stack([labels.row[positions][which], kind]), axis=1)
    typed = np.bincount(row_and_type[1], minlength=len(types.ids))
    sources = pc.value_counts(index.rows["source"].take(pa.array(rows)))
    return {
        "entities": _most(dict(zip(labels.ids, images.tolist(), strict=True))),
        "types": _most(dict(zip(types.ids, typed.tolist(), strict=True))),
        "sources": _most({s["values"] or "": s["counts"] for s in sources.to_pylist()}),
    }


def _most(counts: dict[str, int]) -> list[tuple[str, int]]:
    found = [(name, count) for name, count in counts.items() if count]
    return sorted(found, key=lambda item: (-item[1], item[0]))[:_MOST_FACETS]


def _inside(index: Snapshot, lasso: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Returns whether each row's point on the map lies inside a polygon; a missing one does not."""
    from matplotlib.path import Path as Polygon

    points = index.map_points()
    if points is None:
        raise InputError(
            f"There is no map of {str(index.folder)!r}; make it with `openmofi index map`."
        )
    placed = ~np.isnan(points).any(1)
    return placed & Polygon(np.asarray(lasso)).contains_points(np.nan_to_num(points))
