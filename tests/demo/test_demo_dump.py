import csv
import gzip
import json

import pytest

from openmofi.demo.dump import write_catalogue, write_dump
from openmofi.demo.entities import WORLD
from openmofi.demo.senses import SENSES

COUNTRIES = [entity for entity in WORLD if entity.kind == "country"]
SIGNALS = [entity for entity in WORLD if entity.kind == "signal"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("dump") / "dump.json.gz"
    assert write_dump(path, countries=COUNTRIES, senses=SENSES) == 72 + len(SENSES) + 6
    return gzip.decompress(path.read_bytes()).decode("ascii")


@pytest.fixture(scope="module")
def documents(text):
    lines = text.split("\n")[1:-2]
    return {d["id"]: d for d in (json.loads(line.removesuffix(",")) for line in lines)}


def test_lines_begin_and_end_as_in_a_real_dump(text):
    first, *entities, last, rest = text.split("\n")
    assert (first, last, rest) == ("[", "]", "")
    assert all(line.endswith("},") for line in entities[:-1])
    assert entities[-1].endswith("}")
    assert len(json.loads(text)) == len(entities)


def test_there_are_at_least_forty_distractors():
    assert len(SENSES) >= 40
    assert len({sense.id for sense in SENSES}) == len(SENSES)


def test_most_signal_names_and_the_trap_countries_have_a_namesake():
    shared = set().union(*(sense.names for sense in SENSES), {c.name.casefold() for c in COUNTRIES})
    assert all(signal.name.casefold() in shared for signal in SIGNALS)
    assert {"turkey", "georgia", "jordan", "chad", "jersey"} <= shared


def test_an_entity_has_the_parts_that_readers_look_for(documents):
    georgia = documents["Q230"]
    assert list(georgia) == [
        "type",
        "id",
        "labels",
        "descriptions",
        "aliases",
        "claims",
        "sitelinks",
    ]
    assert georgia["labels"]["en"] == {"language": "en", "value": "Georgia"}
    assert {"language": "en", "value": "Georgian"} in georgia["aliases"]["en"]
    assert georgia["sitelinks"]["enwiki"]["title"] == "Georgia (country)"
    types = [c["mainsnak"]["datavalue"]["value"]["id"] for c in georgia["claims"]["P31"]]
    assert "Q6256" in types
    assert georgia["claims"]["P18"][0]["mainsnak"]["datatype"] == "commonsMedia"


def test_sitelinks_are_as_many_as_the_popularity(documents):
    for thing in (*COUNTRIES, *SENSES):
        assert len(documents[thing.id]["sitelinks"]) == thing.sitelinks


def test_given_names_stand_under_mul(documents):
    assert list(documents["demo:mike-name"]["labels"]) == ["mul"]
    assert list(documents["demo:mike-name"]["descriptions"]) == ["en"]


def test_the_catalogue_lists_the_signals(tmp_path):
    assert write_catalogue(tmp_path / "signals.csv", signals=SIGNALS) == 26
    with (tmp_path / "signals.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    lima = rows["ICS:L"]
    assert lima["name"] == "Lima"
    assert lima["description"] == "maritime signal flag for the letter L, yellow and black quarters"
    assert "flag L" in lima["aliases"].split("|")
    assert 0 < int(lima["weight"]) < 100
