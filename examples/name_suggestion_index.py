"""Brands and operators of OpenStreetMap's name-suggestion-index -> a catalogue for `kb build`.

    npm pack name-suggestion-index
    python examples/name_suggestion_index.py name-suggestion-index-*.tgz brands.csv
    openmofi kb build brands.csv --out kb

In: the npm package (BSD-3-Clause) as its .tgz, or a folder that it was unpacked or installed into.
Out: a CSV with a row per Wikidata id: name, aliases (the name in other languages and its short
forms), description (brand: fast food; burger) and type (brand, fast food). There is no weight: the
package counts nothing.

Items without a Wikidata id are left out, and so are

- the operator of a brand's shops, a network's operator: those are other entities;
- matchNames: they are misspellings and former names in small letters, from which the linker would
  learn that these brands are written small;
- the tree of flags, in which the flag of Guatemala is called Guatemala.
"""

import csv
import json
import re
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILES = ("nsi.min.json", "nsi.json")
TREES = {"brands": "brand", "operators": "operator", "transit": "network"}
"""Name of a tree -> the tag whose values name its entities; NAME:wikidata is their id."""
MAIN_TAGS = r"{}(:short)?(:{})?"
OTHER_TAGS = r"(name|short_name|alt_name|official_name)(:{})?"
LANGUAGE = r"[a-z]{2,3}(-[\w-]+)?"
"""Not brand:wikidata, nor operator:type."""


@dataclass
class Entity:
    """What the items of one Wikidata id say."""

    names: Counter[str] = field(default_factory=Counter)
    aliases: dict[str, None] = field(default_factory=dict)
    kinds: dict[str, dict[str, None]] = field(default_factory=dict)
    """Tag -> what bears the name: brand -> fast food."""
    cuisines: dict[str, None] = field(default_factory=dict)

    def row(self, id: str) -> tuple[str, str, str, str, str]:
        """Returns id, name, aliases, description and type."""
        name = self.names.most_common(1)[0][0]
        others = [alias for alias in {**self.names, **self.aliases} if alias != name]
        parts = [f"{tag}: {', '.join(kinds)}" for tag, kinds in self.kinds.items()]
        parts += [", ".join(self.cuisines)] if self.cuisines else []
        types = [
            *self.kinds,
            *dict.fromkeys(kind for kinds in self.kinds.values() for kind in kinds),
        ]
        return id, name, "|".join(others), "; ".join(parts), "|".join(types)


def main(package: Path, out: Path) -> None:
    """Writes the catalogue."""
    entities, num_left_out = entities_of(read_package(package))
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "name", "aliases", "description", "type"])
        table.writerows(entity.row(id) for id, entity in entities.items())
    print(
        f"wrote {out} ({len(entities):,} entities; {num_left_out:,} items without an id left out)"
    )


def read_package(package: Path) -> dict[str, Any]:
    """Returns path -> category, such as brands/amenity/fast_food -> {"items": [...]}."""
    if package.is_dir():
        found = [path for name in FILES for path in sorted(package.rglob(name))]
        texts = [found[0].read_bytes()] if found else []
    else:
        with tarfile.open(package) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}
            found = [members[name] for name in FILES if name in members]
            texts = [file.read() for m in found[:1] if (file := archive.extractfile(m))]
    if not texts:
        sys.exit(f"{package} holds no {FILES[-1]}; expected the npm package name-suggestion-index.")
    return json.loads(texts[0])["nsi"]


def entities_of(categories: dict[str, Any]) -> tuple[dict[str, Entity], int]:
    """Returns id -> entity, and the number of items without an id."""
    entities: dict[str, Entity] = {}
    num_left_out = 0
    for tree, tag in TREES.items():
        found = [path for path in categories if path.startswith(f"{tree}/")]
        for path, tags in ((p, item["tags"]) for p in found for item in categories[p]["items"]):
            if f"{tag}:wikidata" not in tags or tag not in tags:
                num_left_out += 1
                continue
            entity = entities.setdefault(tags[f"{tag}:wikidata"], Entity())
            add(entity, tags, tag, path.rpartition("/")[2].replace("_", " "))
    return entities, num_left_out


def add(entity: Entity, tags: dict[str, str], tag: str, kind: str) -> None:
    """Adds what the tags of one item say of its entity."""
    entity.names[tags[tag]] += 1
    # name is the brand's own in its tree; elsewhere it may be that of a line or a building.
    wanted = [MAIN_TAGS.format(tag, LANGUAGE)]
    wanted += [OTHER_TAGS.format(LANGUAGE)] if tag == "brand" else []
    for key, value in tags.items():
        if any(re.fullmatch(pattern, key) for pattern in wanted):
            entity.aliases |= dict.fromkeys(filter(None, re.split(r"\s*[;|]\s*", value)))
    entity.kinds.setdefault(tag, {})[kind] = None
    cuisines = tags.get("cuisine", "").replace("_", " ").split(";")
    entity.cuisines |= dict.fromkeys(filter(None, cuisines))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
