"""Damaged and unusual pairs: each costs itself, is counted by reason, and takes none along."""

import io
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import jpeg, write_tar
from openmofi.errors import InputError
from openmofi.pairs import ImageReader, find_shards, read_shard
from openmofi.pairs.caption import check_caption


def _rows(path):
    source = find_shards(path)
    return [row for s in source.shards for row in read_shard(source.root, s).table.to_pylist()]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("a cat", ("a cat", "")),
        ("кот".encode(), ("кот", "")),
        (None, ("", "no_caption")),
        (7, ("", "no_caption")),
        (b"", ("", "no_caption")),
        (" \n\t", ("", "no_caption")),
        (b"caf\xe9", ("caf\ufffd", "caption_not_utf8")),
        ("half \ud83d", ("half \ufffd\ufffd\ufffd", "caption_not_utf8")),
        ("nul\0", ("nul\0", "")),
    ],
)
def test_captions_are_clean_or_refused(found, expected):
    text, error = check_caption(found)
    assert error == expected[1]
    assert text.rstrip("\ufffd?") == expected[0].rstrip("\ufffd?")
    text.encode("utf-8")


def test_a_caption_of_a_megabyte_is_refused_and_cut():
    text, error = check_caption(b"apple " * 200_000)
    assert error == "caption_too_long"
    assert len(text) == 20_000


# ---- tar -------------------------------------------------------------------------------------


def test_a_tar_of_all_kinds_of_damage_gives_every_sample_a_row(tmp_path):
    rows = _rows(write_tar(tmp_path / "a.tar", fruit.damaged_members()))
    errors = {row["key"]: row["error"] for row in rows}
    assert errors.keys() == fruit.damaged_keys()
    assert errors.items() >= {
        ("latin", "caption_not_utf8"),
        ("half", "caption_not_utf8"),
        ("blank", "no_caption"),
        ("mega", "caption_too_long"),
        ("deep", "bad_json"),
        ("alone", "no_image"),
        ("whole", ""),
    }


def _write_members(path, members):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_repeated_key_begins_another_sample(tmp_path):
    one, two = jpeg((1, 1, 1)), jpeg((2, 2, 2))
    members = [("a.jpg", one), ("a.txt", b"one"), ("a.jpg", two), ("a.txt", b"two")]
    path = _write_members(tmp_path / "a.tar", members)
    rows = _rows(path)
    assert [(row["key"], row["caption"]) for row in rows] == [("a", "one"), ("a", "two")]
    assert [ImageReader(tmp_path).read(row) for row in rows] == [one, two]


def test_a_name_that_is_not_utf8_costs_no_image(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        for suffix, data in ((".jpg", jpeg()), (".txt", b"tea")):
            info = tarfile.TarInfo(f"caf\xe9{suffix}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    [row] = _rows(path)
    assert (row["key"], row["caption"], row["error"]) == ("caf\ufffd", "tea", "")
    assert ImageReader(tmp_path).read(row) == jpeg()


# ---- listings --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())

    def listing(content, name="captions.csv"):
        (tmp_path / name).write_bytes(content)
        return [(row["key"], row["caption"], row["error"]) for row in _rows(tmp_path / name)]

    return listing


def test_an_unquoted_comma_refuses_its_line_instead_of_cutting_it(photos):
    rows = photos(b'file,caption\na.jpg,red, round\nb.jpg,"red, round"\n')
    assert rows == [("a.jpg", "red", "too_many_fields"), ("b.jpg", "red, round", "")]


def test_a_quote_that_nobody_closes_costs_one_line(photos):
    rows = photos(b'file,caption\na.jpg,"open\nb.jpg,fine\nc.jpg,too\n')
    assert rows == [("line 2", "", "bad_csv"), ("b.jpg", "fine", ""), ("c.jpg", "too", "")]


def test_a_quote_inside_a_caption_is_just_a_quote(photos):
    assert photos(b'file,caption\na.jpg,a 5" screen\n') == [("a.jpg", 'a 5" screen', "")]


def test_a_caption_may_have_several_lines(photos):
    rows = photos(b'file,caption\r\na.jpg,"two\r\nlines"\r\nb.jpg,one\r\n')
    assert rows == [("a.jpg", "two\r\nlines", ""), ("b.jpg", "one", "")]


@pytest.mark.parametrize("delimiter", [b",", b";", b"\t"])
def test_spreadsheets_of_all_countries_are_read(photos, delimiter):
    content = b"\xef\xbb\xbffile,caption\na.jpg,th\xc3\xa9\n".replace(b",", delimiter)
    assert photos(content) == [("a.jpg", "thé", "")]


def test_absent_images_and_captions_are_counted_one_by_one(photos):
    rows = photos(b"file,caption\na.jpg\n,lonely\nz.jpg,gone\n\nb.jpg,here\n")
    errors = [(key, error) for key, _, error in rows]
    gone = [("line 3", "image_missing"), ("z.jpg", "image_missing")]
    assert errors == [("a.jpg", "no_caption"), *gone, ("b.jpg", "")]


def test_a_name_that_no_disk_could_hold_is_a_missing_image(photos):
    names = [b"n" * 5000, b"a/" * 5000, b"a\0b"]
    content = b"file,caption\n" + b"".join(name + b",x\n" for name in names)
    assert {error for _, _, error in photos(content)} == {"image_missing"}


def test_a_damaged_line_of_json_costs_itself(photos):
    lines = [
        b'{"file": "a.jpg"}',
        b'{"file": "b.jpg", "caption": "tea"}',
        b'{"file": "c.jpg", "capt',
        b"[1, 2]",
        b"[" * 100_000,
        b'{"file": "d.jpg", "caption": "\\ud83d"}',
    ]
    rows = photos(b"\n".join(lines), "captions.jsonl")
    errors = [error for _, _, error in rows]
    assert errors == ["no_caption", "", "bad_json", "bad_json", "bad_json", "caption_not_utf8"]


@pytest.mark.parametrize("content", [b"", b"file,caption\n", b"\n\n"])
def test_a_listing_of_nothing_is_one_sentence(photos, content):
    with pytest.raises(InputError, match="lists no images"):
        photos(content)


@pytest.mark.skipif(os.name != "posix", reason="such names exist on POSIX only")
def test_a_file_name_that_is_not_utf8_is_missing_and_no_crash(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "a.txt").write_text("tea")
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:
        file.write(jpeg())
    errors = {row["key"]: row["error"] for row in _rows(tmp_path)}
    assert errors == {"a.jpg": "", "caf\ufffd.jpg": "image_missing"}


# ---- Parquet ---------------------------------------------------------------------------------


def test_parquet_cells_that_hold_nothing_are_missing_images(tmp_path):
    images = [jpeg(), None, b""]
    pq.write_table(pa.table({"caption": ["a"] * 3, "image": images}), tmp_path / "x.parquet")
    rows, reader = _rows(tmp_path), ImageReader(tmp_path)
    assert reader.read(rows[0]) == jpeg()
    for row in rows[1:]:
        with pytest.raises(OSError, match="no image bytes"):
            reader.read(row)


def test_a_column_of_names_may_be_called_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    table = pa.table({"caption": ["a", "b"], "image": ["a.jpg", None]})
    pq.write_table(table, tmp_path / "x.parquet")
    rows = _rows(tmp_path)
    assert [row["error"] for row in rows] == ["", "image_missing"]
    assert ImageReader(tmp_path).read(rows[0]) == jpeg()


def test_a_damaged_page_is_an_error_of_the_image(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"caption": ["a"], "image": [jpeg()]}), path)
    [row] = _rows(tmp_path)
    column = pq.read_metadata(path).row_group(0).column(1)
    data, begin = bytearray(path.read_bytes()), column.dictionary_page_offset
    data[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"."):
        ImageReader(tmp_path).read(row)


def test_shards_of_one_name_get_different_ones(tmp_path):
    (tmp_path / "a").mkdir()
    for path in ("a/b.tar", "a__b.tar", "c.tar"):
        write_tar(tmp_path / path, {"1.jpg": jpeg()})
    names = [shard.name for shard in find_shards(tmp_path).shards]
    assert len(set(names)) == 3
    assert "c" in names
