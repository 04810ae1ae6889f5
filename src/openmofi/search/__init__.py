"""Stage 9b, search: find images by picture, text or entity, and name what new ones show."""

from openmofi.search.index import Hit, Index
from openmofi.search.query import search
from openmofi.search.tag import Tag, Tagger, tag

__all__ = ["Hit", "Index", "Tag", "Tagger", "search", "tag"]
