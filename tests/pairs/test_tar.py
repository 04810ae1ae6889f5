import io
import os
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import jpeg, write_tar
from openmofi.files.hidden import is_hidden
from openmofi.pairs import ImageReader, find_shards, read_shard
from openmofi.pairs.tar import scan_tar
from openmofi.pairs.tar_samples import IMAGE, JSON, TXT, extensions, group


def _pairs(path):
    source = find_shards(path)
    [shard] = source.shards
    return source, read_shard(source.root, shard)


def test_scan_agrees_with_the_standard_library(tmp_path):
    members = {f"{i:05d}.{x}": bytes(i * 37 % 2000) for i in range(50) for x in ("jpg", "txt")}
    path = write_tar(tmp_path / "a.tar", members)
    with tarfile.open(path) as archive:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
    assert [(m.name, m.offset, m.size) for m in scan_tar(path)] == expected


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_pax_and_gnu_are_read(tmp_path, kind):
    name = "folder/" + "x" * 200 + "é.jpg"
    with tarfile.open(tmp_path / "a.tar", "w", format=kind) as archive:
        info = tarfile.TarInfo(name)
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    [member] = scan_tar(tmp_path / "a.tar")
    assert (member.name, member.size) == (name, 3)


def test_every_whole_sample_of_a_truncated_tar_is_kept(tmp_path):
    members = {f"{i}.{x}": d for i in range(10) for x, d in (("jpg", jpeg()), ("txt", b"cap"))}
    path = write_tar(tmp_path / "a.tar", members)
    path.write_bytes(path.read_bytes()[:9000])
    source, pairs = _pairs(path)
    whole = [row for row in pairs.table.to_pylist() if row["status"] == "ok"]
    assert pairs.damage == "truncated_tar"
    assert len(whole) >= 3
    assert all(ImageReader(source.root).read(row) == jpeg() for row in whole)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=2000))
def test_garbage_is_reported_and_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("garbage") / "a.tar"
    path.write_bytes(data)
    members = scan_tar(path)
    assert members.damage in {None, "not_a_tar", "truncated_tar", "damaged_tar_header"}
    assert members.damage or not len(members)


def test_a_caption_that_is_not_utf8_is_refused_alone(tmp_path):
    members = {"1.jpg": jpeg(), "1.txt": b"caf\xe9", "2.jpg": jpeg(), "2.txt": b"tea"}
    _, pairs = _pairs(write_tar(tmp_path / "a.tar", members))
    assert pairs.table["error"].to_pylist() == ["caption_not_utf8", ""]
    assert pairs.table["caption"].to_pylist()[1] == "tea"


def test_sidecar_gives_caption_and_url(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.txt": b"old"})
    rows = pa.table({"key": ["1", "2"], "caption": ["new", "lost"], "url": ["u", "v"]})
    pq.write_table(rows, tmp_path / "a.parquet")
    [row] = _pairs(tmp_path / "a.tar")[1].table.to_pylist()
    assert (row["caption"], row["url"]) == ("new", "u")


def test_a_sample_without_an_image_is_refused(tmp_path):
    _, pairs = _pairs(write_tar(tmp_path / "a.tar", {"1.txt": b"words"}))
    assert pairs.table["error"].to_pylist() == ["no_image"]


# ---- the compiled walk -----------------------------------------------------------------------


def _archive(path, members, kind=tarfile.USTAR_FORMAT, **fields):
    with tarfile.open(path, "w", format=kind) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def _expected(path):
    with tarfile.open(path) as archive:
        return [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


def _scanned(path):
    return [(m.name, m.offset, m.size) for m in scan_tar(path)]


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=8),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([0, 1.5]),
)
def test_any_names_and_sizes_agree_with_the_standard_library(tmp_path_factory, members, kind, time):
    members = [(name.strip("/") or "x", data) for name, data in members]
    path = _archive(tmp_path_factory.mktemp("t") / "a.tar", members, kind, mtime=time)
    assert _scanned(path) == _expected(path)


@settings(max_examples=60)
@given(st.integers(0, 30_000), st.sampled_from([tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]))
def test_a_cut_tar_gives_the_samples_before_the_cut(tmp_path_factory, length, kind):
    members = [(f"{i}.{x}", bytes([i]) * 700) for i in range(9) for x in ("jpg", "txt")]
    path = _archive(tmp_path_factory.mktemp("t") / "a.tar", members, kind, mtime=0.5)
    whole = _scanned(path)
    path.write_bytes(path.read_bytes()[:length])
    cut = scan_tar(path)
    assert [(m.name, m.offset, m.size) for m in cut] == whole[: len(cut)]
    assert len(cut) == sum(offset + size <= length for _, offset, size in whole)


def _with_header(data, at, changes):
    """Changes bytes of a header and makes its checksum hold again."""
    for place, value in changes.items():
        data[at + place] = value
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


@settings(max_examples=150)
@given(
    st.sampled_from([0, 512, 1024, 1536, 2048, 3072]),
    st.dictionaries(st.sampled_from([*range(124, 136), 156, 156, 257, 345]), st.integers(0, 255)),
    st.dictionaries(st.integers(512, 1023), st.integers(0, 255), max_size=5),
)
def test_headers_that_lie_never_crash_nor_hang(tmp_path_factory, at, changes, payload):
    members = [(f"{i}é.txt", b"tea" * 100) for i in range(4)]
    path = _archive(tmp_path_factory.mktemp("t") / "a.tar", members, tarfile.PAX_FORMAT)
    data = bytearray(path.read_bytes())
    for place, value in payload.items():
        data[place] = value
    _with_header(data, at, changes)
    path.write_bytes(data)
    for member in scan_tar(path):
        assert 512 <= member.offset <= member.offset + member.size <= len(data)


@pytest.mark.parametrize("length", [20_000, 200_000])
def test_a_name_of_any_length_is_read(tmp_path, length):
    path = _archive(tmp_path / "a.tar", [("x" * length, b"tea"), ("b", b"")], tarfile.PAX_FORMAT)
    assert _scanned(path) == _expected(path)


def test_links_folders_and_devices_are_passed_over(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"x{kind.decode()}")
            info.type, info.linkname = kind, "y" * 150
            archive.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"tea"))
    assert [name for name, _, _ in _scanned(path)] == ["a.txt"]
    assert _scanned(path) == _expected(path)


def test_a_sparse_file_costs_itself_alone(tmp_path):
    path = _archive(tmp_path / "a.tar", [(f"{i}.txt", b"tea") for i in range(3)])
    data = bytearray(path.read_bytes())
    _with_header(data, 1024, {156: ord("S")})
    path.write_bytes(data)
    assert [name for name, _, _ in _scanned(path)] == ["0.txt", "2.txt"]


def test_garbage_behind_a_member_is_named_as_such(tmp_path):
    path = _archive(tmp_path / "a.tar", [("1.txt", b"tea"), ("2.txt", b"tea")])
    data = bytearray(path.read_bytes())
    data[1024:1100] = b"\xff" * 76
    path.write_bytes(data)
    members = scan_tar(path)
    assert (len(members), members.damage) == (1, "damaged_tar_header")


def test_large_images_are_not_read(tmp_path, monkeypatch):
    path = _archive(tmp_path / "a.tar", [(f"{i}.jpg", bytes(400_000)) for i in range(20)])
    taken, pread = [], os.pread

    def counted(fd, size, offset):
        taken.append(size)
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    assert len(scan_tar(path)) == 20
    assert sum(taken) < 200_000


# ---- samples ---------------------------------------------------------------------------------


def _slow_samples(names):
    """Samples by a dict: the definition."""
    samples, latest = [], {}
    for number, name in enumerate(names):
        if is_hidden(name):
            continue
        folder, slash, file_name = name.rpartition("/")
        stem, _, extension = file_name.partition(".")
        key, extension = folder + slash + stem, extension.lower()
        if key not in latest or extension in latest[key]:
            latest[key] = {}
            samples.append((key, latest[key]))
        latest[key][extension] = number
    return samples


@settings(max_examples=200)
@given(
    st.lists(
        st.builds(
            "{}{}{}".format,
            st.sampled_from(["", "d/", "d.e/", "./", "../", ".d/", "d/__MACOSX/", "__MACOSX.d/"]),
            st.sampled_from(["a", "b", "._c"]),
            st.sampled_from(["", ".avif", ".png", ".JPG", ".txt", ".json", ".cls", ".jpg.txt"]),
        ),
        max_size=30,
    )
)
def test_samples_are_those_of_a_dict_of_keys(names):
    raw = [name.encode() for name in names]
    ends = np.cumsum([0, *map(len, raw)])
    joined = np.frombuffer(b"".join(raw) or b"x", np.uint8)
    first, key_size, slots = group(joined, ends, *extensions())
    expected = _slow_samples(names)
    assert [names[m][:size] for m, size in zip(first, key_size, strict=True)] == [
        key for key, _ in expected
    ]
    for row, (_, files) in zip(slots.tolist(), expected, strict=True):
        image = next((files[x] for x in ("jpg", "png", "avif") if x in files), -1)
        found = row[IMAGE], row[TXT], row[JSON]
        assert found == (image, files.get("txt", -1), files.get("json", -1))


def test_json_is_the_caption_where_no_text_is(tmp_path):
    members = {"1.jpg": jpeg(), "1.json": b'{"caption": "tea", "x": [1]}', "2.jpg": jpeg()}
    members |= {"2.json": b'{"caption": 7}', "3.jpg": jpeg(), "3.json": b"[]", "4.jpg": jpeg()}
    members |= {"4.json": b'{"caption": null}', "5.jpg": jpeg(), "5.json": b"{"}
    _, pairs = _pairs(write_tar(tmp_path / "a.tar", members))
    assert pairs.table["caption"].to_pylist()[0] == "tea"
    none = ["no_caption"] * 3
    assert pairs.table["error"].to_pylist() == ["", *none, "bad_json"]


def test_of_a_sidecars_repeated_keys_the_last_counts_and_its_gaps_are_filled(tmp_path):
    members = {f"{i}.{x}": d for i in "123" for x, d in (("jpg", jpeg()), ("txt", b"old"))}
    write_tar(tmp_path / "a.tar", members)
    rows = {"key": ["2", "2", None, "3"], "caption": ["first", "last", "none", None]}
    pq.write_table(pa.table(rows | {"uid": ["x"] * 4}), tmp_path / "a.parquet")
    _, pairs = _pairs(tmp_path / "a.tar")
    assert pairs.table["caption"].to_pylist() == ["old", "last", "old"]
