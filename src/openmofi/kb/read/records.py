"""What the readers of dumps and catalogues pass to the builder: an entity, or a refusal."""

from collections.abc import Iterator

import msgspec

from openmofi.refused import Refused


class EntityRecord(msgspec.Struct, frozen=True, gc=False):
    """One entity as its source describes it."""

    id: str
    label: str
    names: list[tuple[str, str, str]]
    """(raw name, language, kind); the kind is label, alias or title."""
    line: int
    """Line of the source, from 1."""
    description: str = ""
    types: list[str] = []
    subclass_of: list[str] = []
    image: str = ""
    enwiki: str = ""
    sitelinks: int = 0
    statements: int = 0
    popularity: float | None = None
    """Sitelinks, or the catalogue's weight; None if the source does not give it."""


class LeftOutClass(Refused, frozen=True, gc=False):
    """An item that is left out, and that others may be instances of: its label is kept."""

    id: str = ""
    label: str = ""


Records = Iterator[EntityRecord | Refused]
