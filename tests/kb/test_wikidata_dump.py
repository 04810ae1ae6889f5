import bz2
import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from openmofi.config import KBSettings
from openmofi.kb.read.records import EntityRecord
from records import read_dump

WIKIDATA = Path(__file__).parents[3] / "shared" / "data" / "wikidata"


def item(identifier: str, name: str = "a name", **fields) -> dict:
    return {"id": identifier, "type": "item", "labels": {"en": {"value": name}}, **fields}


def statement(number: int, rank: str = "normal", **value) -> dict:
    value = {"numeric-id": number, **value}
    return {"rank": rank, "mainsnak": {"datavalue": {"value": value}}}


def dump_bytes(*items: dict) -> bytes:
    return b"[\n" + b",\n".join(json.dumps(item).encode() for item in items) + b"\n]\n"


def read(folder: Path, content: bytes, name: str = "dump.json", **settings) -> list:
    path = folder / name
    path.write_bytes(content)
    settings = {"preset": "full", **settings}  # these items have no sitelinks
    return list(read_dump(path, KBSettings(**settings)))


def reasons(records: list) -> Counter[str]:
    return Counter(getattr(record, "reason", "entity") for record in records)


COMPRESSED = {
    ".json": bytes,
    ".json.gz": gzip.compress,
    ".json.bz2": bz2.compress,
    ".json.zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESSED)
def test_every_compression_reads_the_same(tmp_path, suffix):
    items = [item(f"Q{i}", f"name {i}") for i in range(1, 40_000)]
    records = read(tmp_path, COMPRESSED[suffix](dump_bytes(*items)), "d" + suffix)
    assert [record.id for record in records] == [i["id"] for i in items]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json.gz", ".json.bz2", ".json.zst"])
def test_a_truncated_file_keeps_what_was_readable(tmp_path, suffix):
    whole = dump_bytes(*(item(f"Q{i}", f"{i * i * 7919}") for i in range(1, 60_000)))
    data = COMPRESSED[suffix](whole)
    counts = reasons(read(tmp_path, data[: len(data) // 2], "d" + suffix))
    assert counts["truncated_file"] == 1
    assert set(counts) == {"entity", "truncated_file"}
    assert counts["entity"] > 20_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "Q1", "labels": ', "bad_json"),
        (b'{"id": "Q1"}, {"id": "Q2"}', "several_entities"),
        (b'{"id": "Q1"}}', "bad_json"),
        (b"nonsense", "bad_json"),
        (b'{"id": 5, "type": "item"}', "bad_structure"),
        (b'{"type": "item", "labels": []}', "no_id"),
        (b'{"id": "P31", "type": "property"}', "property_not_item"),
        (b'{"id": "L1", "type": "lexeme"}', "not_an_item"),
        (b'{"id": "Q1", "type": "item", "labels": []}', "no_name"),
        (b'{"id": "Q1", "type": "item", "labels": {"de": {"value": "Erde"}}}', "no_name"),
        (b'{"id": "Q1", "labels": {"en": {"value": "\xff"}}}', "not_utf8"),
    ],
)
def test_an_unreadable_line_is_counted_and_nothing_else_is_lost(tmp_path, line, reason):
    good = json.dumps(item("Q2")).encode()
    records = read(tmp_path, b"[\n" + good + b",\n" + line + b",\n" + good + b"\n]\n")
    assert reasons(records) == {"entity": 2, reason: 1}
    assert records[1].line == 3


def test_types_prefer_preferred_and_skip_deprecated(tmp_path):
    normal = [statement(1), statement(2, "deprecated"), statement(3, id="Q3")]
    preferred = [*normal, statement(4, "preferred")]
    no_value = [{"rank": "normal", "mainsnak": {"snaktype": "novalue"}}]
    items = [item("Q9", claims={"P31": claims}) for claims in (normal, preferred, no_value)]
    assert [r.types for r in read(tmp_path, dump_bytes(*items))] == [["Q1", "Q3"], ["Q4"], []]


def test_unexpected_statements_do_not_cost_the_entity(tmp_path):
    (record,) = read(tmp_path, dump_bytes(item("Q1", claims={"P31": "oops"}, unheard_of=[1])))
    assert record.label == "a name"
    assert record.types == []


def test_empty_maps_written_as_lists_are_empty(tmp_path):
    empty = {key: [] for key in ("descriptions", "aliases", "claims", "sitelinks")}
    (record,) = read(tmp_path, dump_bytes(item("Q1", **empty)))
    assert record == EntityRecord("Q1", "a name", [("a name", "en", "label")], 2, popularity=0.0)


def test_names_come_from_labels_titles_and_aliases(tmp_path):
    georgia = item(
        "Q230",
        "Georgia",
        aliases={"en": [{"value": "Sakartvelo"}, {"value": "Georgia"}], "de": [{"value": "x"}]},
        sitelinks={"enwiki": {"title": "Georgia (country)"}, "dewiki": {"title": "Georgien"}},
    )
    (record,) = read(tmp_path, dump_bytes(georgia))
    assert record.names == [("Georgia", "en", "label"), ("Sakartvelo", "en", "alias")]
    assert (record.enwiki, record.sitelinks) == ("Georgia (country)", 2)


def test_labels_follow_the_order_of_languages(tmp_path):
    labels = {"mul": {"value": "M"}, "en": {"value": "E"}, "fr": {"value": "F"}}
    content = dump_bytes({"id": "Q1", "type": "item", "labels": labels})
    assert read(tmp_path, content)[0].label == "E"
    assert read(tmp_path, content, languages=("fr", "mul"))[0].label == "F"
    assert read(tmp_path, content, languages=("it", "mul"))[0].label == "M"


def test_disambiguation_pages_are_refused(tmp_path):
    page = item("Q1", claims={"P31": [statement(4167410)]})
    assert reasons(read(tmp_path, dump_bytes(page))) == {"wikimedia_page": 1}


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"entities": {"Q1": e}}])
@pytest.mark.parametrize("indent", [None, 4])
def test_a_single_entity_file_is_read(tmp_path, wrap, indent):
    content = json.dumps(wrap(item("Q1")), indent=indent).encode()
    assert [record.id for record in read(tmp_path, content)] == ["Q1"]


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_a_byte_order_mark_costs_no_entity(tmp_path, suffix):
    lines = (json.dumps(item(f"Q{i}")).encode() for i in (1, 2))
    content = COMPRESSED[suffix](b"\xef\xbb\xbf" + b"\n".join(lines))
    assert [record.id for record in read(tmp_path, content, "d" + suffix)] == ["Q1", "Q2"]


needs_wikidata = pytest.mark.skipif(not WIKIDATA.is_dir(), reason="../shared/data is absent")


@needs_wikidata
def test_a_real_entity_is_read_whole():
    (adams,) = read_dump(WIKIDATA / "Q42.json", KBSettings())
    assert (adams.label, adams.types, adams.enwiki) == ("Douglas Adams", ["Q5"], "Douglas Adams")
    assert adams.image.endswith(".jpg")
    assert ("Douglas Noël Adams", "en", "alias") in adams.names


@needs_wikidata
def test_a_dump_with_bugs_is_survived():
    records = list(read_dump(WIKIDATA / "mock-dump-with-bugs.json", KBSettings(preset="full")))
    assert reasons(records) == {"no_name": 55, "property_not_item": 46}
