"""Writes the demo's two sources of knowledge: a Wikidata dump and a catalogue of signal flags.

`dump.json.gz` has the exact format of Wikidata's JSON dumps: `[`, one entity per line, each line
but the last ending with a comma, `]`. It contains the countries and things that share their names.
`signals.csv` is an example of a user's own catalogue: id, name, aliases, description, weight.

Format: https://doc.wikimedia.org/Wikibase/master/php/docs_topics_json.html
"""

from __future__ import annotations

import csv
import gzip
import json
import uuid
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from openmofi.demo.entities import DemoEntity
from openmofi.demo.senses import Sense

# Types of the entities. No image shows them, so they have no sitelinks and are left out.
_CLASSES = {
    "Q3624078": ("sovereign state", "Q6256"),
    "Q6256": ("country", "Q56061"),
    "Q5": ("human", "Q215627"),
    "Q35657": ("U.S. state", "Q10864048"),
    "Q515": ("city", "Q486972"),
    "Q5119": ("capital city", "Q515"),
}
_COUNTRY_TYPES = ("Q3624078", "Q6256")  # sovereign state, country
_DEPENDENCIES = frozenset({"JE"})

# Titles in English Wikipedia that differ from the country's name.
_ARTICLES = {"Georgia": "Georgia (country)", "Ireland": "Republic of Ireland"}


def write_dump(path: Path, *, countries: Sequence[DemoEntity], senses: Sequence[Sense]) -> int:
    """Writes a gzipped Wikidata dump; returns the number of its items."""
    documents = [*map(_country_document, countries), *map(_sense_document, senses)]
    documents += [_class_document(identifier) for identifier in _CLASSES]
    # A dump is not sorted by popularity, and readers must not rely on an order.
    documents.sort(key=lambda document: uuid.uuid5(uuid.NAMESPACE_URL, document["id"]).bytes)
    lines = [json.dumps(document, separators=(",", ":")) for document in documents]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    with path.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as stream:
        stream.write(text.encode())
    return len(documents)


def write_catalogue(path: Path, *, signals: Sequence[DemoEntity]) -> int:
    """Writes the signal flags as a CSV catalogue; returns the number of its rows."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("id", "name", "aliases", "description", "weight"))
        for signal in signals:
            aliases = "|".join(signal.aliases)
            writer.writerow((signal.id, signal.name, aliases, signal.description, signal.sitelinks))
    return len(signals)


def _country_document(country: DemoEntity) -> dict[str, Any]:
    types = () if country.iso in _DEPENDENCIES else _COUNTRY_TYPES
    file = f"Flag of {country.name}.svg"
    image = {"value": file, "type": "string"}
    return _document(
        country.id,
        language="en",
        label=country.name,
        description=country.description,
        aliases=country.aliases,
        claims={
            "P31": [_class_claim(country.id, value) for value in types],
            "P18": [_statement(country.id, "P18", file, image, "commonsMedia")],
        },
        sitelinks=_sitelinks(_ARTICLES.get(country.name, country.name), country.sitelinks),
    )


def _sense_document(sense: Sense) -> dict[str, Any]:
    return _document(
        sense.id,
        language=sense.language,
        label=sense.name,
        description=sense.description,
        aliases=sense.aliases,
        claims={"P31": [_class_claim(sense.id, value) for value in sense.types]},
        sitelinks=_sitelinks(sense.enwiki, sense.sitelinks),
    )


def _class_document(identifier: str) -> dict[str, Any]:
    label, whole = _CLASSES[identifier]
    claim = {"P279": [_class_claim(identifier, whole, "P279")]}
    texts = {"label": label, "description": "", "aliases": ()}
    return _document(identifier, language="en", claims=claim, sitelinks={}, **texts)


def _document(
    identifier: str,
    *,
    language: str,
    label: str,
    description: str,
    aliases: Sequence[str],
    claims: dict[str, list[dict[str, Any]]],
    sitelinks: dict[str, Any],
) -> dict[str, Any]:
    """Returns one entity with its keys in the dumps' order."""
    names = [_text(language, alias) for alias in aliases]
    return {
        "type": "item",
        "id": identifier,
        "labels": {language: _text(language, label)},
        # Wikidata's descriptions are never under `mul`.
        "descriptions": {"en": _text("en", description)} if description else {},
        "aliases": {language: names} if names else {},
        "claims": {key: statements for key, statements in claims.items() if statements},
        "sitelinks": sitelinks,
    }


def _text(language: str, value: str) -> dict[str, str]:
    return {"language": language, "value": value}


def _class_claim(identifier: str, value: str, prop: str = "P31") -> dict[str, Any]:
    item = {"entity-type": "item", "numeric-id": int(value[1:]), "id": value}
    datavalue = {"value": item, "type": "wikibase-entityid"}
    return _statement(identifier, prop, value, datavalue, "wikibase-item")


def _statement(
    identifier: str, prop: str, value: str, datavalue: dict[str, Any], datatype: str
) -> dict[str, Any]:
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{identifier} {prop} {value}")
    snak = {"snaktype": "value", "property": prop, "datavalue": datavalue, "datatype": datatype}
    return {
        "mainsnak": snak,
        "type": "statement",
        "id": f"{identifier}${str(unique).upper()}",
        "rank": "normal",
    }


def _sitelinks(title: str, count: int) -> dict[str, Any]:
    """Returns links from the `count` largest sites, all with the English title."""
    sites = _sites()[:count]
    return {site: {"site": site, "title": title, "badges": []} for site in sites}


@cache
def _sites() -> list[str]:
    text = files("openmofi.demo").joinpath("sites.txt").read_text(encoding="utf-8")
    return " ".join(line for line in text.splitlines() if not line.startswith("#")).split()
