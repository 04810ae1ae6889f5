"""Rows of CSV and JSON lines: what was written comes back, and damage costs its own row."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.files.tables import as_bytes, read_header, read_rows

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=8)
tables = st.lists(st.tuples(texts, texts), max_size=6)


def _read(folder, name, content, **how):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(folder / name, **how))


def _reasons(rows):
    return [row.refused.reason if row.refused else "" for row in rows]


def _csv(rows, delimiter=","):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return buffer.getvalue()


@given(tables, st.sampled_from(",;\t"), st.booleans())
def test_csv_comes_back_as_it_was_written(tmp_path_factory, rows, delimiter, strict):
    content = _csv([("a", "b"), *rows], delimiter)
    found = _read(tmp_path_factory.getbasetemp(), "t.csv", content, strict=strict)
    assert [tuple(row.fields.values()) for row in found] == rows
    assert not any(row.refused for row in found)


@given(tables, st.booleans())
def test_json_lines_come_back_as_they_were_written(tmp_path_factory, rows, strict):
    content = "\n\n".join(json.dumps({"a": a, "b": [b, 1]}) for a, b in rows)
    found = _read(tmp_path_factory.getbasetemp(), "t.jsonl", content, strict=strict)
    assert [row.fields for row in found] == [{"a": a, "b": [b, 1]} for a, b in rows]
    assert [row.line for row in found] == [1 + 2 * number for number in range(len(rows))]


# What is wrong with a row: the reason where reading is strict, and where it is not.
BAD = {
    "open": (b'1,"open', "bad_csv", "bad_csv"),
    "behind a quote": (b'1,"x"y', "bad_csv", ""),
    "open behind a quote": (b'"1"x,"open', "bad_csv", "bad_csv"),
    "too many": (b"1,2,3", "too_many_fields", "too_many_fields"),
    "latin-1": (b"1,caf\xe9", "not_utf8", ""),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_a_damaged_row_costs_itself_alone(tmp_path, name, place, newline):
    bad, *reasons = BAD[name]
    lines = [b"7,seven", b"8,eight"]
    lines.insert(place, bad)
    for strict, reason in zip((True, False), reasons, strict=True):
        rows = _read(tmp_path, "t.csv", newline.join([b"id,name", *lines]), strict=strict)
        assert [row.line for row in rows] == [2, 3, 4]
        assert _reasons(rows) == [reason if number == place else "" for number in range(3)]


def test_bytes_that_are_not_utf8_are_kept_where_that_is_asked(tmp_path):
    for name, content in (("t.csv", b"n\ncaf\xe9\n"), ("t.jsonl", b'{"n": "caf\xe9"}\n')):
        [row] = _read(tmp_path, name, content, strict=False)
        assert as_bytes(row.fields["n"]) == b"caf\xe9"


def test_a_quote_that_another_row_closes_is_told_by_the_row_inside(tmp_path):
    content = 'file,caption\na.jpg,"open\nb.jpg,x\nc.jpg,closed"\n'
    rows = _read(tmp_path, "t.csv", content, is_row=lambda values: values[0].endswith(".jpg"))
    assert _reasons(rows) == ["bad_csv", "", ""]
    assert len(_read(tmp_path, "t.csv", content)) == 1  # unasked, it is a caption of three lines


def test_a_file_that_breaks_off_says_so_behind_its_whole_rows(tmp_path):
    packed = gzip.compress(b"".join(b"%d,x%d\n" % (i, i * i) for i in range(9000)), mtime=0)
    *rows, last = _read(tmp_path, "t.csv.gz", packed[: len(packed) // 2])
    assert set(_reasons(rows)) == {""}
    assert len(rows) > 1000
    assert last.refused.reason == "truncated_file"


def test_an_empty_file_has_neither_names_nor_rows(tmp_path):
    assert _read(tmp_path, "t.csv", "") == _read(tmp_path, "t.jsonl", "") == []
    assert read_header(tmp_path / "t.csv")[0] == []
