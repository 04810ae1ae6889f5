import csv
from pathlib import Path

import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files import tables
from openmofi.kb.read.catalogue import read_catalogue


def read(folder: Path, content: str | bytes, **settings) -> list:
    path = folder / "things.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_catalogue(path, KBSettings(**settings)))


def test_all_columns_arrive(tmp_path):
    header = "id,name,aliases,description,weight,image,type"
    (record,) = read(tmp_path, f'{header}\nX1,Oat Milk,Oatly|oat drink,"a, b",3,p.jpg,Milk\n')
    assert [name for name, _, _ in record.names] == ["Oat Milk", "Oatly", "oat drink"]
    assert (record.description, record.popularity) == ("a, b", 3.0)
    assert (record.image, record.types) == ("p.jpg", ["Milk"])


@pytest.mark.parametrize(
    "header", ["id,name", "sku_id,name", "\ufeffid,name", "id;name", "id\tname"]
)
def test_headers_vary(tmp_path, header):
    delimiter = next(c for c in ",;\t" if c in header)
    (record,) = read(tmp_path, f"{header}\r\n7{delimiter}Seven\r\n")
    assert (record.id, record.label) == ("7", "Seven")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",No Id", "no_id"),
        ("1,", "no_name"),
        ("1,x,heavy", "bad_weight"),
        ("1,x,-1", "bad_weight"),
        ("1,x,nan", "bad_weight"),
        ("1,x,1e39", "bad_weight"),
        ('1,"x"y,1', "bad_csv"),
        ('1,"x,1', "bad_csv"),
        ("1,x,1,extra", "too_many_fields"),
    ],
)
def test_a_refused_row_has_a_reason_and_a_line(tmp_path, row, reason):
    good, bad = read(tmp_path, f"id,name,weight\n1,x,1\n{row}\n")
    assert good.id == "1"
    assert (bad.reason, bad.line) == (reason, 3)


def test_a_row_that_is_not_utf8_is_refused_alone(tmp_path):
    records = read(tmp_path, b"id,name\n1,caf\xe9\n2,tea\n")
    assert [getattr(record, "reason", "entity") for record in records] == ["not_utf8", "entity"]
    assert [record.line for record in records] == [2, 3]


@pytest.mark.parametrize("number", [2, 150, 150_000])
def test_an_unclosed_quote_costs_its_own_row_only(tmp_path, number):
    rows = "".join(f"{i},name {i}\n" for i in range(2, number))
    bad, *good = read(tmp_path, f'id,name\n1,"open\n{rows}')
    assert (bad.reason, bad.line) == ("bad_csv", 2)
    assert '1,"open' in bad.text
    assert [record.line for record in good] == list(range(3, number + 1))


def test_an_unclosed_quote_does_not_reach_to_the_next_quoted_field(tmp_path):
    rows = '1,"open,foo\n2,Lyon,x\n3,"Paris",y\n4,"Rome\n, Italy",z\n'
    bad, *good = read(tmp_path, f"id,name,description\n{rows}")
    assert bad.reason == "bad_csv"
    assert [record.label for record in good] == ["Lyon", "Paris", "Rome\n, Italy"]
    assert [record.line for record in good] == [3, 4, 5]


def test_fields_may_be_long_but_not_endless(tmp_path, monkeypatch):
    before = csv.field_size_limit()
    aliases = "|".join(f"alias {i}" for i in range(20_000))
    (record,) = read(tmp_path, f"id,name,aliases\n1,x,{aliases}\n")
    assert (len(record.names), csv.field_size_limit()) == (20_001, before)
    monkeypatch.setattr(tables, "_MAX_FIELD_CHARS", 1000)
    bad, good = read(tmp_path, f"id,name\n1,{aliases}\n2,tea\n")
    assert (bad.reason, len(bad.text) < 300, good.label) == ("field_too_long", True, "tea")


@pytest.mark.parametrize(
    ("header", "settings", "message"),
    [
        ("ids,name", {}, r"no column 'id' \(did you mean 'ids'\?\), only: ids, name; name the"),
        ("a_id,b_id,name", {}, r"no column 'id'"),
        ("id,name", {"id_column": "sku"}, r"no column 'sku', only: id, name;"),
        ("id,names", {}, r"no column 'name' \(did you mean 'names'\?\)"),
        ("", {}, r"is empty, but a catalogue starts with a line of column names"),
    ],
)
def test_a_wrong_header_is_explained(tmp_path, header, settings, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, f"{header}\n1,x\n" if header else "", **settings)


def test_a_header_that_is_not_utf8_is_explained(tmp_path):
    with pytest.raises(InputError, match="is not UTF-8"):
        read(tmp_path, b"id,n\xe4me\n")
