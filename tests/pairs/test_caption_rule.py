"""What is a caption, wherever it lies: one rule for tars, tables, listings and datasets."""

import codecs
import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import jpeg, write_tar
from openmofi.errors import InputError
from openmofi.files.wide import wide_encoding
from openmofi.kb import build_kb
from openmofi.pairs import find_shards, read_captions, read_shard
from openmofi.pairs.caption import CAPTION_COLUMNS, check_caption, text_of

FOUND = {
    "text": ("an apple", "an apple"),
    "list": (["an apple", "a pear"], "an apple"),
    "nested": ([["an apple"], ["a pear"]], "an apple"),
    "null_first": ([None, "", " ", "an apple"], "an apple"),
    "objects": ([{"text": "an apple"}, {"text": "a pear"}], "an apple"),
    "flickr": ({"sentids": [1], "raw": "an apple"}, "an apple"),
    "languages": ({"de": "ein Apfel", "en": "an apple"}, "an apple"),
    "regions": ({"de-AT": "ein Apfel", "en_GB": ["an apple"]}, "an apple"),
    "without_english": ({"de": "an apple"}, "an apple"),
    "null": (None, ""),
    "nothing": ([], ""),
    "nulls": ([None, None], ""),
    "number": (7, ""),
    "numbers": ([1, 2], ""),
    "other_object": ({"score": 1.5, "source": "web"}, ""),
}


def _read(path):
    found = find_shards(path)
    tables = [read_shard(found.root, shard).table for shard in found.shards]
    return [(row["caption"], row["error"]) for table in tables for row in table.to_pylist()]


def _right(name):
    right = FOUND[name][1]
    return right, "" if right else "no_caption"


@pytest.mark.parametrize("column", CAPTION_COLUMNS)
@pytest.mark.parametrize("name", FOUND)
def test_a_caption_in_json_is_the_same_in_a_tar_and_in_a_listing(tmp_path, name, column):
    record = json.dumps({column: FOUND[name][0], "width": 3})
    tar = write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(), "a.json": record.encode()})
    assert _read(tar) == [_right(name)]
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "metadata.jsonl").write_text(
        json.dumps({"file_name": "a.jpg"} | json.loads(record))
    )
    assert _read(tmp_path / "metadata.jsonl") == [_right(name)]


@pytest.mark.parametrize("name", [n for n in FOUND if n not in ("nothing", "nulls", "null")])
def test_a_caption_in_a_table_is_the_same(tmp_path, name):
    values = [FOUND[name][0], None]
    table = pa.table({"captions": pa.array(values), "image": [jpeg(), jpeg()]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert _read(tmp_path / "a.parquet") == [_right(name), ("", "no_caption")]
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert _read(tmp_path / "a.arrow") == [_right(name), ("", "no_caption")]


def test_a_sidecar_s_caption_may_be_a_list(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.jpg": jpeg(), "b.jpg": jpeg(), "b.txt": b"a pear"})
    pq.write_table(
        pa.table({"key": ["a", "b"], "captions": [[None, "an apple"], None]}),
        tmp_path / "a.parquet",
    )
    assert _read(tmp_path / "a.tar") == [("an apple", ""), ("a pear", "")]


def test_a_map_of_languages_is_an_object():
    kind = pa.map_(pa.string(), pa.string())
    [found] = pa.array([[("de", "ein Apfel"), ("en", "an apple")]], kind).to_pylist()
    assert text_of(found) == "an apple"


def test_brackets_without_end_hold_no_caption():
    deep = "an apple"
    for _ in range(500):
        deep = [deep]
    assert text_of(deep) is None


# ---- quotes ----------------------------------------------------------------------------------

QUOTED = {
    "none_open": ('a,"an ""apple"""', 'b,"two\nlines"', "c,x"),
    "one": ('a,"an apple', "b,a pear", "c,x"),
    "two": ('a,"an apple', "b,a pear", 'c,"a plum', "d,x"),
    "two_and_a_quote_at_the_end": ('a,"an apple', "b,a pear", 'c,a plum"', "d,x"),
    "three": ('a,"an apple', 'b,"a pear', 'c,"a plum', "d,x"),
    "last": ("a,an apple", 'b,"a pear'),
}
KEPT = {
    "none_open": "abc",
    "one": "bc",
    "two": "bd",
    "two_and_a_quote_at_the_end": "bcd",
    "three": "d",
    "last": "a",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("name", QUOTED)
def test_every_row_of_a_listing_is_kept_or_refused(tmp_path, name, newline):
    rows = [row.replace(",", ".jpg,", 1) for row in QUOTED[name]]
    for row in rows:
        (tmp_path / row.partition(",")[0]).write_bytes(jpeg())
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *rows]), newline=newline)
    found = find_shards(tmp_path)
    table = read_shard(found.root, found.shards[0]).table
    errors = dict(zip(table["key"].to_pylist(), table["error"].to_pylist(), strict=True))
    assert len(errors) == len(rows)
    assert {key for key, error in errors.items() if not error} == {f"{k}.jpg" for k in KEPT[name]}
    assert {error for error in errors.values() if error} <= {"bad_csv"}


def test_a_caption_of_several_lines_stays_whole(tmp_path):
    lines = "Jam, of plums\n\nand, as ever,\npears: see b.jpg"
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("file", "caption"), ("a.jpg", lines), ("b.jpg", "x")])
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    (tmp_path / "captions.csv").write_text(buffer.getvalue(), newline="")
    assert _read(tmp_path) == [(lines, ""), ("x", "")]


# ---- UTF-16 ----------------------------------------------------------------------------------

WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize("codec", WIDE)
def test_a_wide_file_is_named_as_such(tmp_path, codec):
    words = f"is {codec[:6].upper()}; save it as UTF-8"
    rows = {"a.csv": "id,name\n1,apple\n", "a.jsonl": '{"file": "a.jpg", "caption": "x"}\n'}
    for name, text in (rows | {"a.txt": "an apple\n"}).items():
        (tmp_path / name).write_bytes(text.encode(codec))
        with pytest.raises(InputError, match=words):
            list(read_captions(tmp_path / name, 10))
    for name in rows:
        with pytest.raises(InputError, match=words):
            build_kb([tmp_path / name], out=tmp_path / "kb")


@pytest.mark.parametrize("codec", WIDE)
def test_a_wide_text_beside_an_image_is_refused_and_readable(tmp_path, codec):
    members = {"a.jpg": jpeg(), "a.txt": "an apple – ein Apfel".encode(codec)}
    assert _read(write_tar(tmp_path / "a.tar", members)) == [
        ("an apple – ein Apfel", "caption_not_utf8")
    ]
    for name, data in members.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a.tar").unlink()
    assert _read(tmp_path) == [("an apple – ein Apfel", "caption_not_utf8")]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfean apple",
        b"",
        b"an apple",
        "Äpfel".encode(),
        "苹果".encode(),
        b"\0",
        b"ab\0\0",
        b"\0\0\0\0",
        b"a\0b",
    ],
    ids=["stray", "empty", "ascii", "utf8", "chinese", "zero", "padded", "zeros", "odd"],
)
def test_other_text_is_not_wide(data):
    assert wide_encoding(data) == ""


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path):
    data = codecs.BOM_UTF8 + b"an apple"
    assert check_caption(data) == ("an apple", "")
    members = {"a.jpg": jpeg(), "a.txt": data, "b.jpg": jpeg(), "b.txt": codecs.BOM_UTF8}
    assert _read(write_tar(tmp_path / "a.tar", members)) == [("an apple", ""), ("", "no_caption")]
