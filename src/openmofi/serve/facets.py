"""Counts of the entities, types and sources among the rows that were found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from openmofi.search import Filter
from openmofi.serve import replies
from openmofi.serve.library import Library

_NEAREST = 1_000
"""Number of rows that are counted for a query with terms."""


def count_facets(
    library: Library, vector: np.ndarray | None, conditions: Filter, min_score: float | None
) -> replies.Facets:
    """Counts the facets of all rows that pass or, for a query with terms, of the nearest of them.

    A group whose own condition is set is counted without it, so that more values can be chosen.
    """
    if vector is None and not conditions:
        return library.once(facets_of_all)
    found = _counted(library, _rows(library, vector, conditions, min_score))
    freed = {
        "entities": replace(conditions, entities=()),
        "types": replace(conditions, types=()),
        "sources": replace(conditions, sources=()),
    }
    for group, others in freed.items():
        if others != conditions:
            rows = _rows(library, vector, others, min_score)
            setattr(found, group, getattr(_counted(library, rows), group))
    return found


def _rows(
    library: Library, vector: np.ndarray | None, conditions: Filter, min_score: float | None
) -> np.ndarray:
    passing = library.index.passing(conditions)
    if vector is not None:
        rows, scores, _ = library.index.nearest(vector, k=_NEAREST, passing=passing)
        return rows if min_score is None else rows[scores >= min_score]
    return np.flatnonzero(library.index.live if passing is None else passing)


def facets_of_all(library: Library) -> replies.Facets:
    """Counts the facets of all rows."""
    return _counted(library, np.flatnonzero(library.index.live))


def _counted(library: Library, rows: np.ndarray) -> replies.Facets:
    found = library.index.facets(rows)
    named = {
        kind: [
            replies.CountedEntity(id=entity, label=library.label(entity), count=count)
            for entity, count in found[kind]
        ]
        for kind in ("entities", "types")
    }
    sources = [replies.CountedSource(name=name, count=count) for name, count in found["sources"]]
    return replies.Facets(**named, sources=sources, of=len(rows))
