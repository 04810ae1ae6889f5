"""What a hit must be like, besides near: entities, their types, sources, label scores, text."""

from __future__ import annotations

from dataclasses import dataclass, fields

from openmofi.errors import SettingsError


@dataclass(frozen=True)
class Filter:
    """Conditions on rows of an index; all that are given must hold.

    Raises:
        SettingsError: a polygon of less than three corners.
    """

    entities: tuple[str, ...] = ()
    """Ids; the row is labelled with one of them."""
    not_entities: tuple[str, ...] = ()
    """Ids; the row is labelled with none of them."""
    types: tuple[str, ...] = ()
    """Ids of types; one of the row's entities is of one of them."""
    sources: tuple[str, ...] = ()
    """Hosts of the images' addresses, or shards; see docs/formats.md."""
    min_label_score: float | None = None
    """Least score of a label that counts; also for `entities` and `types`."""
    max_text_area: float | None = None
    """Largest share of the image covered by text; rows where it is unknown do not pass."""
    lasso: tuple[tuple[float, float], ...] = ()
    """Corners of a polygon on the index's map; both coordinates go from 0 to 1."""

    def __post_init__(self) -> None:
        if 0 < len(self.lasso) < 3:
            raise SettingsError(f"A lasso has at least 3 corners, not {len(self.lasso)}.")

    def __bool__(self) -> bool:
        """Tells whether there is any condition."""
        return any(getattr(self, field.name) not in ((), None) for field in fields(self))
