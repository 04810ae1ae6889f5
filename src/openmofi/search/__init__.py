"""Stage 9b, search: find images by picture, text or entity, and name what new ones show."""

from openmofi.search.filters import Filter
from openmofi.search.index import Hit, Index
from openmofi.search.query import Found, Searcher, Term, search
from openmofi.search.tag import Tag, Tagger, tag

__all__ = ["Filter", "Found", "Hit", "Index", "Searcher", "Tag", "Tagger", "Term", "search", "tag"]
