"""Stage 9b, search: find images by image, text or entity."""

from typing import Any

from openmofi.search.filters import Filter
from openmofi.search.index import Hit, Index
from openmofi.search.presence import Presence
from openmofi.search.query import Found, Searcher, Term, search

__all__ = ["Filter", "Found", "Hit", "Index", "Presence", "Searcher", "Term", "search"]


def __getattr__(name: str) -> Any:
    """Finds the names of `openmofi.tag` in their former place, for code that still uses it."""
    if name in ("Tag", "Tagger", "tag"):
        from openmofi import tag

        return getattr(tag, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
