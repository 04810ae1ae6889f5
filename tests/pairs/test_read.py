import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import jpeg
from openmofi.errors import InputError
from openmofi.pairs import ImageReader, find_shards, read_shard


def _rows(path):
    source = find_shards(path)
    return source, [r for s in source.shards for r in read_shard(source.root, s).table.to_pylist()]


def test_parquet_with_bytes_gives_each_row_its_own_image(tmp_path):
    photos = [jpeg((i, 0, 0)) for i in (10, 100, 200)]
    table = pa.table({"caption": ["a", "b", None], "image": photos})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    source, rows = _rows(tmp_path)
    assert [row["error"] for row in rows] == ["", "", "no_caption"]
    assert [ImageReader(source.root).read(row) for row in rows] == photos


def test_hugging_face_image_structs_are_read(tmp_path):
    images = [{"bytes": jpeg(), "path": None}]
    pq.write_table(pa.table({"text": ["a"], "image": images}), tmp_path / "x.parquet")
    source, rows = _rows(tmp_path)
    assert ImageReader(source.root).read(rows[0]) == jpeg()


@pytest.mark.parametrize("name", ["captions.csv", "metadata.jsonl"])
def test_a_listing_beside_images_is_used(tmp_path, name):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    csv = 'file,caption\na.jpg,"red, round"\nb.jpg,gone\n'
    jsonl = '{"file_name": "a.jpg", "text": "red, round"}\n{"file_name": "b.jpg", "text": "x"}\n'
    (tmp_path / name).write_text(csv if name.endswith("csv") else jsonl)
    source, rows = _rows(tmp_path)
    assert (rows[0]["caption"], rows[0]["error"]) == ("red, round", "")
    assert rows[1]["error"] == "image_missing"
    assert ImageReader(source.root).read(rows[0]) == jpeg()


def test_one_wrong_encoding_in_a_listing_refuses_one_row(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "captions.csv").write_bytes(b"file,caption\na.jpg,caf\xe9\na.jpg,th\xc3\xa9\n")
    _, rows = _rows(tmp_path)
    assert [row["error"] for row in rows] == ["caption_not_utf8", ""]
    assert rows[1]["caption"] == "thé"


def test_text_files_beside_images_are_captions(tmp_path):
    (tmp_path / "deep").mkdir()
    for name, text in (("a", "first"), ("deep/b", None)):
        (tmp_path / f"{name}.png").write_bytes(jpeg())
        if text:
            (tmp_path / f"{name}.txt").write_text(text)
    _, rows = _rows(tmp_path)
    assert [(row["caption"], row["error"]) for row in rows] == [("first", ""), ("", "no_caption")]


@pytest.mark.parametrize("make", [lambda p: p / "nowhere", lambda p: p])
def test_nothing_to_read_is_one_sentence(tmp_path, make):
    with pytest.raises(InputError, match=r"pass a folder of \.tar"):
        find_shards(make(tmp_path))


def test_a_listing_without_the_columns_names_those_it_has(tmp_path):
    (tmp_path / "captions.csv").write_text("image,words\na,b\n")
    source = find_shards(tmp_path)
    with pytest.raises(InputError, match="has the columns image, words"):
        read_shard(source.root, source.shards[0])


def test_an_image_cut_off_since_is_an_error(tmp_path):
    from conftest import write_tar

    path = write_tar(tmp_path / "a.tar", {"1.jpg": jpeg(), "1.txt": b"x"})
    source, rows = _rows(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(OSError, match="ends before"):
        ImageReader(source.root).read(rows[0])


def _files_of_img2dataset(folder):
    """Writes what img2dataset 1.47 leaves with --output_format files."""
    for shard in range(2):
        (folder / f"{shard:05d}").mkdir(parents=True)
        rows = []
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            about = {"uid": f"{shard * 3 + number:032x}", "url": f"https://x.org/{key}.jpg"}
            about |= {"key": key, "caption": f"a lime {key}", "status": "success"}
            place = folder / f"{shard:05d}" / key
            place.with_suffix(".jpg").write_bytes(fruit.photo("lime", number))
            place.with_suffix(".txt").write_text(about["caption"])
            place.with_suffix(".json").write_text(json.dumps(about))
            rows.append(about)
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard:05d}.parquet")
        (folder / f"{shard:05d}_stats.json").write_text("{}")


def test_img2datasets_files_are_read_with_captions_and_urls(tmp_path):
    _files_of_img2dataset(tmp_path)
    source = find_shards(tmp_path)
    assert [(shard.path, shard.kind) for shard in source.shards] == [
        ("00000", "folder"),
        ("00001", "folder"),
    ]
    for number, shard in enumerate(source.shards):
        table = read_shard(source.root, shard).table
        keys = [f"{number:05d}{i:04d}" for i in range(3)]
        assert table["caption"].to_pylist() == [f"a lime {key}" for key in keys]
        assert table["url"].to_pylist() == [f"https://x.org/{key}.jpg" for key in keys]
        assert table["path"].to_pylist() == [f"{number:05d}/{key}.jpg" for key in keys]
        reader = ImageReader(source.root)
        assert reader.read(table.to_pylist()[1]) == fruit.photo("lime", 1)


def test_a_json_beside_an_image_may_hold_the_caption_or_be_damaged(tmp_path):
    contents = {"a": '{"caption": "a lime", "url": "https://x.org"}', "b": "{", "c": "[1]"}
    for name, text in contents.items():
        (tmp_path / f"{name}.jpg").write_bytes(fruit.photo("lime"))
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "b.txt").write_text("a plum")
    source = find_shards(tmp_path)
    table = read_shard(source.root, source.shards[0]).table
    assert table["caption"].to_pylist() == ["a lime", "a plum", ""]
    assert table["url"].to_pylist() == ["https://x.org", "", ""]
    assert table["error"].to_pylist() == ["", "", "no_caption"]
