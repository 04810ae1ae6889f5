import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.read.catalogue import read_catalogue

ROWS = [
    {"id": "1", "name": "Oat Milk", "aliases": ["Oatly", "oat drink"], "types": ["Milk", "Vegan"]},
    {"id": "2", "name": "Tea", "aliases": [], "types": [], "weight": 3.0, "image": "t.jpg"},
]
CSV = (
    "id,name,aliases,types,weight,image\n1,Oat Milk,Oatly|oat drink,Milk|Vegan,,\n2,Tea,,,3,t.jpg\n"
)


def json_lines(folder: Path, *rows: object, name: str = "c.jsonl") -> Path:
    lines = (row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows)
    data = b"\n".join(lines) + b"\n"
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def parquet(folder: Path, rows: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / "c.parquet")
    return folder / "c.parquet"


def test_every_form_of_a_catalogue_gives_the_same(tmp_path):
    (tmp_path / "c.csv").write_text(CSV)
    everything = {"weight": None, "image": None}
    forms = [
        tmp_path / "c.csv",
        json_lines(tmp_path, *ROWS),
        json_lines(tmp_path, *ROWS, name="c.jsonl.gz"),
    ]
    forms.append(parquet(tmp_path, [{**everything, **row} for row in ROWS]))
    tables = []
    for form in forms:
        build_kb(form, out=tmp_path / "kb")
        entities = pq.read_table(tmp_path / "kb" / "entities.parquet").drop(["source"])
        tables.append((entities, pq.read_table(tmp_path / "kb" / "names.parquet")))
    assert all(table == tables[0] for table in tables)
    view = KnowledgeBase.open(tmp_path / "kb").show("1")
    assert view.types == ["Milk", "Vegan"]
    assert sorted(view.names["und"]) == ["Oat Milk", "Oatly", "oat drink"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"{oops", "bad_json"),
        (b"[1]", "bad_structure"),
        (b'{"id": "1", "name": "\xff"}', "not_utf8"),
        ({"name": "x"}, "no_id"),
        ({"id": "1"}, "no_name"),
        ({"id": "1", "name": {"en": "x"}}, "no_name"),
        ({"id": "1", "name": "x", "weight": "heavy"}, "bad_weight"),
        ({"id": "1", "name": "x", "weight": -1}, "bad_weight"),
        ({"id": "1", "name": "x", "weight": 1e39}, "bad_weight"),
        ({"id": "1", "name": "x", "weight": [1]}, "bad_structure"),
        ({"id": "1", "name": "x", "aliases": {"a": 1}}, "bad_structure"),
    ],
)
def test_a_refused_line_has_a_reason_and_a_number(tmp_path, row, reason):
    path = json_lines(tmp_path, {"id": 7, "name": "good"}, row)
    good, bad = read_catalogue(path, KBSettings())
    assert (good.id, bad.reason, bad.line, bool(bad.text)) == ("7", reason, 2, True)


def test_aliases_may_be_text_with_bars(tmp_path):
    (record,) = read_catalogue(
        json_lines(tmp_path, {"id": 1, "name": "a", "aliases": "b|c"}), KBSettings()
    )
    assert [name for name, _, _ in record.names] == ["a", "b", "c"]


def test_parquet_rows_are_refused_one_by_one(tmp_path):
    path = parquet(tmp_path, [{"sku_id": 1, "name": "a"}, {"sku_id": None, "name": "b"}])
    good, bad = read_catalogue(path, KBSettings())
    assert (good.id, bad.reason, bad.line) == ("1", "no_id", 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl", b'{"id": 1, "title": "x"}\n', "has no column 'name'"),
        ("c.jsonl", b'{"key": 1, "name": "x"}\n', "has no column 'id'"),
        ("c.jsonl", b"\nnonsense\n", "has no JSON object, but a catalogue in JSON lines"),
        ("c.jsonl.gz", gzip.compress(b'{"id": 1}', mtime=0)[:12], "is damaged"),
        ("c.parquet", b"PAR1 but no more", "is not a Parquet file"),
    ],
    ids=["other_column", "no_id", "no_object", "cut_off", "no_parquet"],
)
def test_a_useless_catalogue_is_explained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        build_kb(tmp_path / name, out=tmp_path / "kb")


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_a_byte_order_mark_costs_no_entity(tmp_path, name):
    first = b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode()
    records = read_catalogue(json_lines(tmp_path, first, ROWS[1], name=name), KBSettings())
    assert [record.id for record in records] == ["1", "2"]
