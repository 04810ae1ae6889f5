"""Dumps and catalogues -> a knowledge base: entities, their names, and how probable each is."""

from typing import TYPE_CHECKING, Any

from openmofi.kb.store import KnowledgeBase

if TYPE_CHECKING:
    from openmofi.kb.build import build_kb

__all__ = ["KnowledgeBase", "build_kb"]


def __getattr__(name: str) -> Any:
    """Imports `build_kb` only when it is used, which lets everything else start faster."""
    if name == "build_kb":
        from openmofi.kb.build import build_kb

        return build_kb
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
