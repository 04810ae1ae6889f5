"""The demo world's entities: 72 national flags and the 26 letter flags used at sea.

In: `countries.csv` and `signals.csv` in this folder (their headers name the sources).
Out: `WORLD`, a tuple of `DemoEntity`, and `by_id`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal


@dataclass(frozen=True)
class DemoEntity:
    """An entity that the demo's photos show."""

    id: str
    """Wikidata id of a country, ICS:A to ICS:Z for a signal flag."""
    name: str
    aliases: tuple[str, ...]
    """Other names, including the adjective."""
    adjective: str
    """The adjective, as in Turkish flag; empty for signals and if there is none."""
    description: str
    sitelinks: int
    """Popularity on the scale of Wikidata's sitelink counts."""
    kind: Literal["country", "signal"]
    iso: str
    """Two-letter country code; the letter itself for a signal."""
    flag: str
    """Drawing instructions, see flags.py."""
    colours: str = ""
    """The look of a signal flag in words."""


def read_rows(name: str) -> Iterator[dict[str, str]]:
    """Yields the rows of one of the package's CSV files, whose comments start with `#`."""
    text = files("openmofi.demo").joinpath(name).read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))


def split_names(text: str) -> tuple[str, ...]:
    """Splits a cell of names separated by `|`."""
    return tuple(filter(None, text.split("|")))


def _country(row: dict[str, str]) -> DemoEntity:
    return DemoEntity(
        id=row["id"],
        name=row["name"],
        aliases=split_names(f"{row['aliases']}|{row['adjective']}"),
        adjective=row["adjective"],
        description=row["description"],
        sitelinks=int(row["sitelinks"]),
        kind="country",
        iso=row["iso"],
        flag=row["flag"],
    )


def _signal(row: dict[str, str]) -> DemoEntity:
    letter, name = row["letter"], row["name"]
    # No alias «Lima flag»: a longer name alone would decide what the image has to decide.
    derived = (f"flag {letter}", f"signal flag {letter}", f"code flag {letter}", f"{name} signal")
    return DemoEntity(
        id=f"ICS:{letter}",
        name=name,
        aliases=(*split_names(row["aliases"]), *derived),
        adjective="",
        description=f"maritime signal flag for the letter {letter}, {row['colours']}",
        sitelinks=int(row["weight"]),
        kind="signal",
        iso=letter,
        flag=row["flag"],
        colours=row["colours"],
    )


WORLD: tuple[DemoEntity, ...] = (
    *(_country(row) for row in read_rows("countries.csv")),
    *(_signal(row) for row in read_rows("signals.csv")),
)
"""Every entity that the demo can show, countries first."""

by_id: dict[str, DemoEntity] = {entity.id: entity for entity in WORLD}
"""The same entities by id."""
