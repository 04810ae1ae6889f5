import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import jpeg, write_tar
from openmofi.pairs import ImageReader, read_pairs, read_shard
from openmofi.pairs.tar import DamagedTar, scan_tar


def _pairs(path):
    source = read_pairs(path)
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
    members, reason = [], None
    try:
        members += scan_tar(path)
    except DamagedTar as error:
        reason = error.reason
    assert reason in {None, "not_a_tar", "truncated_tar", "damaged_tar_header"}
    assert reason or not members


def test_a_caption_that_is_not_utf8_is_refused_alone(tmp_path):
    members = {"1.jpg": jpeg(), "1.txt": b"caf\xe9", "2.jpg": jpeg(), "2.txt": b"tea"}
    _, pairs = _pairs(write_tar(tmp_path / "a.tar", members))
    assert pairs.table["error"].to_pylist() == ["caption_not_utf8", ""]
    assert pairs.table["caption"].to_pylist()[1] == "tea"


def test_sidecar_gives_caption_and_url(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.txt": b"old"})
    rows = pa.table({"key": ["1", "2"], "caption": ["new", "lost"], "url": ["u", "v"]})
    pq.write_table(rows, tmp_path / "a.parquet")
    [row] = _pairs(tmp_path / "a.tar")[1].table.to_pylist()
    assert (row["caption"], row["url"]) == ("new", "u")


def test_a_sample_without_a_picture_is_refused(tmp_path):
    _, pairs = _pairs(write_tar(tmp_path / "a.tar", {"1.txt": b"words"}))
    assert pairs.table["error"].to_pylist() == ["no_image"]
