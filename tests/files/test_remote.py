"""Inputs at URLs: the same pairs and images as of the same files on this machine."""

import importlib
import json
import uuid
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import fruit
from conftest import jpeg, write_tar
from openmofi.errors import InputError
from openmofi.files.remote import Remote, open_root
from openmofi.pairs import ImageReader, find_shards, open_shard, read_shard


def _tars(folder):
    fruit.write_pairs(folder, shards=2, per_shard=4)
    pq.write_table(pa.table({"key": ["000"], "caption": ["side"]}), folder / "0.parquet")


def _parquet(folder):
    table = pa.table({"caption": ["a", "b"], "image": [jpeg(), jpeg((1, 2, 3))]})
    pq.write_table(table, folder / "x.parquet", row_group_size=1)


def _arrow(folder):
    table = pa.table({"text": ["a", "b"], "image": [jpeg(), jpeg((1, 2, 3))]})
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)


def _listing(folder):
    fruit.write_listing(folder, images=3)


def _beside(folder):
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.jpg").write_bytes(jpeg())
    (folder / "deep" / "a.txt").write_text("tea")


@pytest.fixture
def upload():
    """Copies a folder into memory:// and returns its URL."""
    system, name = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    made = [lambda folder: (system.put(f"{folder}/", f"{name}/", recursive=True), name)[1]]
    yield lambda folder: f"memory:/{made[0](folder)}"
    system.rm(name, recursive=True)


def _read(path):
    source = find_shards(path)
    rows, photos = [], []
    for shard in source.shards:
        with open_shard(str(source.root), shard) as view:
            rows += view.pairs.table.to_pylist()
            photos += [view.read(i) for i in range(len(view.pairs.table))]
    return source, rows, photos


@pytest.mark.parametrize("make", [_tars, _parquet, _arrow, _listing, _beside])
def test_a_url_gives_what_the_folder_gives(tmp_path, upload, make):
    folder = tmp_path / "in"
    (folder / ".hidden").mkdir(parents=True)
    make(folder)
    for name in ("._0.tar", ".hidden/x.tar", "._x.parquet", ".hidden/captions.csv", "._a.jpg"):
        (folder / name).write_bytes(b"x")
    _, rows, photos = _read(folder)
    source, remote_rows, remote_images = _read(upload(folder))
    assert isinstance(source.root, Remote)
    assert (remote_rows, remote_images) == (rows, photos)
    assert len(rows) == {_tars: 8, _listing: 3, _beside: 1}.get(make, 2)
    reader = ImageReader(json.loads(json.dumps(str(source.root))))
    assert [reader.read(row) for row in rows] == photos
    reader.close()


def test_one_file_may_be_named(tmp_path, upload):
    url = upload(fruit.write_pairs(tmp_path / "in", shards=1, per_shard=3))
    source, rows, _ = _read(f"{url}/0.tar")
    assert [(shard.name, shard.path) for shard in source.shards] == [("0", "0.tar")]
    assert len(rows) == 3
    assert source.shards[0].size > 0 < source.shards[0].mtime_ns


def test_a_file_url_is_a_local_path(tmp_path):
    write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.txt": b"tea"})
    assert find_shards(f"file://{tmp_path}").root == tmp_path


@pytest.mark.parametrize("text", ["s3://b/p", "s3:/b/p", "gs://b/p", "hf://datasets/a/b", "C:/x"])
def test_a_place_keeps_its_name_through_a_path(text):
    root = open_root(Path(text))
    url = text.replace("s3:/b", "s3://b") if "//" not in text else text
    assert str(root) == (url if text != "C:/x" else "C:/x")
    assert isinstance(root, Path) == (text == "C:/x")


def test_an_absent_package_is_named(monkeypatch):
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(registry.known_implementations, "s3", {"class": "absent.X", "err": "no"})
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r"pip install 'openmofi\[s3\]'"):
        find_shards("s3://bucket/prefix")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x/y", "a URL that fsspec knows"),
        ("memory://nothing-here", "nothing at"),
    ],
)
def test_what_is_wrong_with_a_url_is_one_sentence(url, words):
    with pytest.raises(InputError, match=words):
        find_shards(url)


def test_a_forbidden_place_is_one_sentence(monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError("Forbidden")

    monkeypatch.setattr(MemoryFileSystem, "find", forbidden)
    with pytest.raises(InputError, match=r"cannot be listed .*Forbidden.* you may read it"):
        find_shards("memory://x")


def _failing(monkeypatch, times):
    """Makes the first transfers end early."""
    left, get_file = [times], MemoryFileSystem.get_file

    def cut(self, path, target, **options):
        get_file(self, path, target, **options)
        if left[0]:
            left[0] -= 1
            Path(target).write_bytes(Path(target).read_bytes()[:600])

    monkeypatch.setattr(MemoryFileSystem, "get_file", cut)
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (3, False)])
def test_a_broken_transfer_is_tried_three_times(tmp_path, upload, monkeypatch, failures, succeeds):
    url = upload(fruit.write_pairs(tmp_path / "in", shards=1, per_shard=3))
    source = find_shards(url)
    _failing(monkeypatch, failures)
    if succeeds:
        assert len(read_shard(source.root, source.shards[0]).table) == 3
    else:
        with pytest.raises(OSError, match=r"gave 600 of [\d,]+ bytes"):
            read_shard(source.root, source.shards[0])


def test_a_shard_is_copied_once_and_leaves_nothing_behind(tmp_path, upload, monkeypatch):
    source = find_shards(upload(fruit.write_pairs(tmp_path / "in", shards=1, per_shard=3)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(MemoryFileSystem, "cat_file", None)  # a range read would fail
    with open_shard(source.root, source.shards[0]) as view:
        assert all(view.read(i) for i in range(3))
        assert len(list(tmp_path.glob("openmofi-*"))) == 1
    assert not list(tmp_path.glob("openmofi-*"))


def test_a_vanished_shard_is_an_error(tmp_path, upload):
    source = find_shards(upload(fruit.write_pairs(tmp_path / "in", shards=1, per_shard=3)))
    fsspec.filesystem("memory").rm(str(source.root).removeprefix("memory:/") + "/0.tar")
    with pytest.raises(FileNotFoundError):
        read_shard(source.root, source.shards[0])
