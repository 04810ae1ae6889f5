"""Conditions on hits: entities, their types, sources, label scores and the area of text."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from openmofi.errors import SettingsError

Facet = Literal["entities", "types", "sources"]
"""What rows can be counted by."""


@dataclass(frozen=True)
class Filter:
    """Conditions on rows of an index; all given ones must hold.

    Raises:
        SettingsError: a polygon has fewer than three corners.
    """

    entities: tuple[str, ...] = ()
    """Ids: the row is labelled with one of them."""
    not_entities: tuple[str, ...] = ()
    """Ids: the row is not labelled with any of them."""
    types: tuple[str, ...] = ()
    """Ids of types: an entity of the row has one of them."""
    sources: tuple[str, ...] = ()
    """Hosts of the images' URLs, or shards; see docs/formats.md."""
    min_label_score: float | None = None
    """Least score of a label; labels below it do not count for `entities` and `types` either."""
    max_text_area: float | None = None
    """Largest share of the image covered by text; rows without this share do not pass."""
    lasso: tuple[tuple[float, float], ...] = ()
    """Corners of a polygon on the index's map, with coordinates from 0 to 1."""

    def __post_init__(self) -> None:
        if 0 < len(self.lasso) < 3:
            raise SettingsError(f"A lasso has at least 3 corners, not {len(self.lasso)}.")

    def __bool__(self) -> bool:
        """Returns whether there is any condition."""
        return any(getattr(self, field.name) not in ((), None) for field in fields(self))
