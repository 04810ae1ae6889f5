"""Large files are cut into parts; together these are the whole, each row once and in order."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import jpeg
from openmofi.pairs import find_shards, open_shard, read_shard
from openmofi.pairs.formats import table_stops
from openmofi.pairs.rows import CAPTION_COLUMNS


def _read(path):
    source = find_shards(path)
    tables = [read_shard(source.root, shard).table for shard in source.shards]
    return source, pa.concat_tables(tables).to_pylist()


def _parquet(path, rows, group):
    captions = [str(i) for i in range(rows)]
    table = pa.table({"caption": captions, "image": [b"%d" % i for i in range(rows)]})
    pq.write_table(table, path, row_group_size=group)


@pytest.mark.parametrize(("rows", "group", "parts"), [(19_999, 1000, 1), (45_000, 3000, 3)])
def test_a_parquet_file_is_cut_between_row_groups(tmp_path, rows, group, parts):
    _parquet(tmp_path / "x.parquet", rows, group)
    source, found = _read(tmp_path)
    assert len(source.shards) == parts
    assert [row["caption"] for row in found] == [str(i) for i in range(rows)]
    assert [row["path"] for row in found[-2:]] == [f"row:{rows - 2}", f"row:{rows - 1}"]
    assert found[-1]["key"] == f"x-{rows - 1:09d}"


def test_parts_have_numbers_and_a_whole_file_keeps_its_name(tmp_path):
    _parquet(tmp_path / "big.parquet", 20_000, 10_000)
    _parquet(tmp_path / "small.parquet", 10, 10)
    names = [shard.name for shard in find_shards(tmp_path).shards]
    assert names == ["big-00000", "big-00001", "small"]


def test_a_part_gives_its_own_images(tmp_path):
    _parquet(tmp_path / "x.parquet", 30_000, 5000)
    source = find_shards(tmp_path)
    with open_shard(source.root, source.shards[1]) as view:
        assert view.read(0) == b"%d" % source.shards[1].start
        assert view.read(7) == b"%d" % (source.shards[1].start + 7)


def test_parts_of_tables_hold_enough_rows():
    assert table_stops([]) == []
    assert table_stops([50_000]) == []
    assert table_stops([9_999, 10_000, 20_000, 29_999]) == [10_000]


@pytest.mark.parametrize("name", ["captions.csv", "metadata.jsonl"])
def test_a_listing_is_cut_by_a_thousand_rows(tmp_path, name):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    csv = "file,caption\n" + "".join(f'a.jpg,"line\n{i}"\n' for i in range(2100))
    jsonl = "".join(f'{{"file_name": "a.jpg", "text": "line\\n{i}"}}\n' for i in range(2100))
    (tmp_path / name).write_text(csv if name.endswith("csv") else jsonl)
    source, found = _read(tmp_path)
    assert [(s.start, s.stop) for s in source.shards] == [(0, 1000), (1000, 2000), (2000, None)]
    assert [row["caption"] for row in found] == [f"line\n{i}" for i in range(2100)]


def test_a_folder_is_cut_by_a_thousand_images(tmp_path):
    for i in range(1001):
        (tmp_path / f"{i:04d}.jpg").write_bytes(b"x")
        (tmp_path / f"{i:04d}.txt").write_text(str(i))
    source, found = _read(tmp_path)
    assert [shard.name for shard in source.shards] == ["folder-00000", "folder-00001"]
    assert [row["caption"] for row in found] == [str(i) for i in range(1001)]


def test_listings_below_name_their_files_from_the_root(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(jpeg())
        (tmp_path / split / "metadata.csv").write_text(f"file_name,text\na.jpg,{split}\n")
    source, found = _read(tmp_path)
    assert [(row["path"], row["caption"]) for row in found] == [
        ("test/a.jpg", "test"),
        ("train/a.jpg", "train"),
    ]
    with open_shard(source.root, source.shards[0]) as view:
        assert view.read(0) == jpeg()


def test_a_hub_folder_of_parquet_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    images = [{"bytes": jpeg(), "path": "1.jpg"}]
    for split in ("train", "test"):
        table = pa.table({"image": images, "caption": [["one", "two"]]})
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    source, found = _read(tmp_path)
    assert [row["caption"] for row in found] == ["one", "one"]
    assert [shard.name for shard in source.shards] == [
        "data__test-00000-of-00001",
        "data__train-00000-of-00001",
    ]


def test_paths_of_a_parquet_below_start_there(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jpg").write_bytes(jpeg())
    names = ["a.jpg", str(tmp_path / "d" / "a.jpg")]
    pq.write_table(pa.table({"path": names, "text": ["x", "y"]}), tmp_path / "d" / "x.parquet")
    source, _ = _read(tmp_path)
    with open_shard(source.root, source.shards[0]) as view:
        assert [view.read(i) for i in range(2)] == [jpeg()] * 2


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["a", None]), ["a", ""]),
        (pa.array(["a", None]).dictionary_encode(), ["a", ""]),
        (pa.array([b"a", b"\xff"]), ["a", "\ufffd"]),
        (pa.array([["a", "b"], None]), ["a", ""]),
        (pa.array([["a", "b"], ["c", "d"]], pa.list_(pa.string(), 2)), ["a", "c"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array([1, 2]), ["", ""]),
    ],
)
def test_captions_of_any_type_are_texts(tmp_path, column, expected):
    table = pa.table({CAPTION_COLUMNS[0]: column, "image": [b"1", b"2"]})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [row["caption"] for row in _read(tmp_path)[1]] == expected
