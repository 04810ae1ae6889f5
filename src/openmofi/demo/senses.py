"""Things with the same names as the demo's flags: the bird turkey, the state of Georgia.

In: `senses.csv` in this folder. Out: `SENSES`, a tuple of `Sense`.
No photo of the demo shows them; a real knowledge base has such things for every name.
"""

from __future__ import annotations

from dataclasses import dataclass

from openmofi.demo.entities import read_rows, split_names


@dataclass(frozen=True)
class Sense:
    """Something that shares its name with a flag."""

    id: str
    """A Wikidata id, or demo:… if there is none."""
    name: str
    aliases: tuple[str, ...]
    language: str
    """Language code of the names; Wikidata keeps given names under `mul`."""
    description: str
    sitelinks: int
    types: tuple[str, ...]
    """Wikidata ids of its classes, if known."""
    enwiki: str
    """Title of its English Wikipedia article."""
    captions: tuple[str, ...]
    """Captions in which this sense is meant."""

    @property
    def names(self) -> set[str]:
        """The name and the aliases in lower case."""
        return {name.casefold() for name in (self.name, *self.aliases)}


SENSES: tuple[Sense, ...] = tuple(
    Sense(
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
    for row in read_rows("senses.csv")
)
"""All distractor senses, with homographs next to each other."""
