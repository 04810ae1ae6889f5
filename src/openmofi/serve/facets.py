"""Counts of the entities, types and sources among the rows that were found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from openmofi.search import Filter
from openmofi.search.filters import Facet
from openmofi.serve import replies
from openmofi.serve.library import Library

_NEAREST = 1_000
"""Number of rows that are counted for a query with terms."""


def count_facets(
    library: Library,
    vector: np.ndarray | None,
    conditions: Filter,
    min_score: float | None,
    passing: np.ndarray | None,
) -> replies.Facets:
    """Counts the facets of all rows that pass or, for a query with terms, of the nearest of them.

    A group whose own condition is set is counted without it, so that more values can be chosen.

    Args:
        library: what is searched.
        vector: the query, or None.
        conditions: what rows pass.
        min_score: least cosine with the query.
        passing: the rows that pass, as `Index.passing` returns them.
    """
    if vector is None and not conditions:
        return library.once(facets_of_all)
    rows = _rows(library, vector, passing, min_score)
    freed = {
        "entities": replace(conditions, entities=()),
        "types": replace(conditions, types=()),
        "sources": replace(conditions, sources=()),
    }
    counted_rows = {
        facet: rows
        if others == conditions
        else _rows(library, vector, library.index.passing(others), min_score)
        for facet, others in freed.items()
    }
    return _counted(library, **counted_rows, of=len(rows))


def _rows(
    library: Library,
    vector: np.ndarray | None,
    passing: np.ndarray | None,
    min_score: float | None,
) -> np.ndarray:
    if vector is not None:
        rows, scores, _ = library.index.nearest(vector, k=_NEAREST, passing=passing)
        return rows if min_score is None else rows[scores >= min_score]
    return np.flatnonzero(library.index.live if passing is None else passing)


def facets_of_all(library: Library) -> replies.Facets:
    """Counts the facets of all rows."""
    rows = np.flatnonzero(library.index.live)
    return _counted(library, entities=rows, types=rows, sources=rows, of=len(rows))


def _counted(
    library: Library,
    *,
    entities: np.ndarray,
    types: np.ndarray,
    sources: np.ndarray,
    of: int,
) -> replies.Facets:
    """Counts each facet among its own rows."""

    def named(rows: np.ndarray, facet: Facet) -> list[replies.CountedEntity]:
        return [
            replies.CountedEntity(id=entity, label=library.label(entity), count=count)
            for entity, count in library.index.facet(rows, facet)
        ]

    found = library.index.facet(sources, "sources")
    return replies.Facets(
        entities=named(entities, "entities"),
        types=named(types, "types"),
        sources=[replies.CountedSource(name=name, count=count) for name, count in found],
        of=of,
    )
