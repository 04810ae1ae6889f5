"""Dumps and catalogues -> a knowledge base: entities, their names, and how probable each is."""

from openmofi.kb.build import build_kb
from openmofi.kb.store import KnowledgeBase

__all__ = ["KnowledgeBase", "build_kb"]
