"""What is known of an image beside its caption, wherever its shard tells it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import jpeg, write_tar
from openmofi.embed import find_places
from openmofi.pairs.records import RecordReader

NAMES = ("uid", "sha256")


def _records(place):
    places = find_places(place)
    reader = RecordReader(places.root, NAMES)
    return [reader(row) for row in places.table.to_pylist()]


@pytest.fixture
def tar(tmp_path):
    (tmp_path / "pairs").mkdir()
    files = {}
    for number in range(3):
        told = json.dumps({"uid": f"in the tar {number}", "sha256": None}).encode()
        files |= {f"{number}.jpg": jpeg(), f"{number}.txt": b"text"}
        files |= {f"{number}.json": told if number < 2 else b"{"}
    return write_tar(tmp_path / "pairs/0.tar", files)


def test_a_tar_tells_in_its_json(tar):
    assert _records(tar) == [{"uid": "in the tar 0"}, {"uid": "in the tar 1"}, {}]


def test_the_parquet_file_beside_it_comes_first_and_is_joined_by_key(tar):
    beside = {"key": ["2", "0"], "uid": ["beside 2", "beside 0"], "sha256": ["ff", None]}
    pq.write_table(pa.table(beside), tar.with_suffix(".parquet"))
    expected = [{"uid": "beside 0"}, {}, {"uid": "beside 2", "sha256": "ff"}]
    assert _records(tar) == expected


@pytest.mark.parametrize("beside", ["a column of another name", "no Parquet"])
def test_a_parquet_file_that_does_not_tell_leaves_it_to_the_tar(tar, beside):
    file = tar.with_suffix(".parquet")
    pq.write_table(pa.table({"key": ["0"], "caption": [beside]}), file)
    if beside == "no Parquet":
        file.write_bytes(b"damaged")
    assert _records(tar)[0] == {"uid": "in the tar 0"}


def test_parquet_shards_tell_by_row(tmp_path):
    columns = {"image": [jpeg(), jpeg()], "caption": ["one", "two"], "uid": ["a", "b"]}
    pq.write_table(pa.table(columns), tmp_path / "0.parquet")
    assert _records(tmp_path / "0.parquet") == [{"uid": "a"}, {"uid": "b"}]


def test_a_folder_tells_beside_the_image(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
        (tmp_path / f"{name}.txt").write_text("text")
    (tmp_path / "b.json").write_text('{"uid": "of b", "other": 1}')
    assert _records(tmp_path) == [{}, {"uid": "of b"}]
