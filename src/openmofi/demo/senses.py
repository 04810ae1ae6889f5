"""Things that bear the same names as the demo's flags: the bird turkey, the state of Georgia.

In: `senses.csv` beside this file. Out: `SENSES`, a tuple of `Sense`.
No photo of the demo shows them; they are what a knowledge base adds to every real name.
"""

from __future__ import annotations

from dataclasses import dataclass

from openmofi.demo.entities import read_rows, split_names


@dataclass(frozen=True)
class Sense:
    """Something whose name a flag shares."""

    id: str
    """A Wikidata id, or demo:… where we have none."""
    name: str
    aliases: tuple[str, ...]
    language: str
    """Language code of the names; Wikidata keeps given names under `mul`."""
    description: str
    sitelinks: int
    types: tuple[str, ...]
    """Wikidata ids of its classes, as far as known."""
    enwiki: str
    """Title of its English Wikipedia article."""
    captions: tuple[str, ...]
    """Phrases in which this sense is meant."""

    @property
    def names(self) -> set[str]:
        """The name and the aliases in lower case."""
        return {name.casefold() for name in (self.name, *self.aliases)}


def _sense(row: dict[str, str]) -> Sense:
    return Sense(
        id=row["id"],
        name=row["name"],
        aliases=split_names(row["aliases"]),
        language=row["language"],
        description=row["description"],
        sitelinks=int(row["sitelinks"]),
        types=split_names(row["types"]),
        enwiki=row["enwiki"],
        captions=split_names(row["captions"]),
    )


SENSES: tuple[Sense, ...] = tuple(_sense(row) for row in read_rows("senses.csv"))
"""Every distractor sense, homographs side by side."""
