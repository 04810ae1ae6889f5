"""How many of the rows that were found have each entity, type and source."""

from __future__ import annotations

import numpy as np

from openmofi.search import Filter
from openmofi.serve import replies
from openmofi.serve.library import Library

_NEAREST = 1_000
"""Rows that are counted where there is a question."""


def count_facets(library: Library, vector: np.ndarray | None, conditions: Filter) -> replies.Facets:
    """Counts what all rows that pass have or, of a question, the nearest of them."""
    if vector is None and not conditions:
        return library.once(facets_of_all)
    passing = library.index.passing(conditions)
    if vector is not None:
        return _counted(library, library.index.nearest(vector, k=_NEAREST, passing=passing)[0])
    assert passing is not None  # there are conditions
    return _counted(library, np.flatnonzero(passing))


def facets_of_all(library: Library) -> replies.Facets:
    """Counts what all rows have."""
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
