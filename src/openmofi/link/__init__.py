"""Captions -> mentions of names -> candidate entities with scores."""

from openmofi.link.linker import Linker
from openmofi.link.words import WordEncoder

__all__ = ["Linker", "WordEncoder"]
