"""A filter and an index -> the rows that pass, and counts of what rows show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmofi.errors import InputError
from openmofi.search.filters import Facet, Filter
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
        passing &= index.sources.among(filter.sources)
    if filter.max_text_area is not None:
        with np.errstate(invalid="ignore"):
            passing &= index.text_area <= filter.max_text_area
    if filter.lasso:
        passing &= _inside(index, filter.lasso)
    return passing


def count_facet(index: Snapshot, rows: np.ndarray, facet: Facet) -> list[tuple[str, int]]:
    """Returns the number of rows with each entity, type or source, the 50 most frequent first."""
    counted = {"entities": index.labels, "types": index.row_types, "sources": index.sources}[facet]
    return _most(counted.ids, counted.count(rows))


def _most(names: Sequence[str], counts: np.ndarray) -> list[tuple[str, int]]:
    """Returns the names with the highest counts; of equal counts, the first by name."""
    if len(counts) > _MOST_FACETS:
        least = np.partition(counts, -_MOST_FACETS)[-_MOST_FACETS]
        found = np.flatnonzero(counts >= max(least, 1))
    else:
        found = np.flatnonzero(counts)
    named = [(names[i], int(counts[i])) for i in found.tolist()]
    return sorted(named, key=lambda item: (-item[1], item[0]))[:_MOST_FACETS]


def _inside(index: Snapshot, lasso: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Returns whether each row's point on the map lies inside a polygon; a missing one does not."""
    from openmofi.search.lasso import inside

    points = index.map_points()
    if points is None:
        raise InputError(
            f"There is no map of {str(index.folder)!r}; make it with `openmofi index map`."
        )
    return inside(points, np.asarray(lasso))
