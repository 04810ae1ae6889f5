"""Captions -> mentions of names -> candidate entities with scores."""

from openmofi.link.linker import Linker

__all__ = ["Linker"]
