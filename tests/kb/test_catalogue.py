from pathlib import Path

import pytest

from openmofi.config import KBSettings
from openmofi.errors import InputError
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


def test_an_unclosed_quote_is_survived(tmp_path):
    rows = "".join(f"{i},name {i}\n" for i in range(2, 30_000))
    records = read(tmp_path, f'id,name\n1,"open\n{rows}')
    assert "bad_csv" in {getattr(record, "reason", "entity") for record in records}


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
