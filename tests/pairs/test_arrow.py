"""Folders written by hand in the layout of datasets.Dataset.save_to_disk and DatasetDict."""

import json

import pyarrow as pa
import pytest

from conftest import jpeg
from openmofi.errors import InputError
from openmofi.pairs import ImageReader, find_shards, open_shard, read_shard

IMAGES = [jpeg((i * 20, 0, 0)) for i in range(6)]


def _write_stream(path, table, batch=2):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)


def _save(folder, rows, split="train", **state):
    """Writes two data files, state.json and dataset_info.json."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    names = [f"data-{i:05d}-of-00002.arrow" for i in range(2)]
    half = -(-len(rows) // 2)
    for number, name in enumerate(names):
        _write_stream(folder / name, table.slice(number * half, half))
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "6bd4e5e3c2f5c1f4",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    } | state
    (folder / "state.json").write_text(json.dumps(state))
    features = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


def _rows(text="text"):
    images = [{"bytes": data, "path": None} for data in IMAGES]
    return [{"image": image, text: f"number {i}"} for i, image in enumerate(images)]


def _read(path):
    source = find_shards(path)
    pairs = [read_shard(source.root, shard) for shard in source.shards]
    return source, [row for part in pairs for row in part.table.to_pylist()], pairs


def test_a_saved_dataset_is_read_in_order_with_its_images(tmp_path):
    source, rows, _ = _read(_save(tmp_path / "set", _rows()))
    assert [shard.kind for shard in source.shards] == ["arrow"] * 2
    assert [row["caption"] for row in rows] == [f"number {i}" for i in range(6)]
    reader = ImageReader(str(source.root))
    assert [reader.read(row) for row in reversed(rows)] == IMAGES[::-1]


def test_every_split_of_a_dataset_dict_is_read(tmp_path):
    for split in ("train", "test"):
        _save(tmp_path / split, _rows(), split)
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    source, rows, _ = _read(tmp_path)
    assert len(rows) == 12
    assert source.shards[0].path == "train/data-00000-of-00002.arrow"
    assert len({row["key"] for row in rows[:6]} | {shard.name for shard in source.shards}) == 10


def test_the_first_of_several_captions_counts(tmp_path):
    rows = [{"image": d, "caption": c} for d, c in zip(IMAGES, [["a", "b"], []] * 3, strict=True)]
    _, rows, _ = _read(_save(tmp_path / "set", rows))
    assert [row["caption"] for row in rows] == ["a", ""] * 3
    assert [row["error"] for row in rows] == ["", "no_caption"] * 3


def test_images_may_be_named_by_path(tmp_path):
    folder = _save(tmp_path / "set", [{"image": {"bytes": None, "path": "a.jpg"}, "text": "x"}] * 2)
    (folder / "a.jpg").write_bytes(jpeg())
    source, rows, _ = _read(folder)
    assert ImageReader(source.root).read(rows[1]) == jpeg()
    (folder / "a.jpg").unlink()
    with pytest.raises(OSError, match="No such file"):
        ImageReader(source.root).read(rows[1])


def test_what_datasets_caches_is_not_read_twice(tmp_path):
    folder = _save(tmp_path / "set", _rows())
    _write_stream(folder / "cache-0123.arrow", pa.Table.from_pylist(_rows()))
    assert len(_read(folder)[1]) == 6
    (folder / "state.json").unlink()
    assert len(_read(folder)[1]) == 6


@pytest.mark.parametrize("state", [{"_indices_data_files": [{"filename": "i"}]}, {}])
def test_rows_chosen_by_an_index_are_refused_in_one_sentence(tmp_path, state):
    folder = _save(tmp_path / "set", _rows(), **state)
    if not state:
        (folder / "indices.arrow").write_bytes(b"")
    with pytest.raises(InputError, match="flatten_indices"):
        find_shards(folder)


def test_a_cut_file_gives_its_whole_batches(tmp_path):
    folder = _save(tmp_path / "set", _rows())
    file = folder / "data-00000-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:-700])
    _, rows, pairs = _read(folder)
    assert [part.damage for part in pairs] == ["truncated_arrow", None]
    assert [row["caption"] for row in rows] == [f"number {i}" for i in (0, 1, 3, 4, 5)]


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b"ARROW1 garbage"])
def test_garbage_is_one_sentence(tmp_path, content):
    (tmp_path / "a.arrow").write_bytes(content)
    source = find_shards(tmp_path / "a.arrow")
    with pytest.raises(InputError, match="not a readable Arrow file"):
        read_shard(source.root, source.shards[0])


def test_arrow_files_of_the_other_format_are_read(tmp_path):
    table = pa.table({"image": IMAGES, "text": [str(i) for i in range(6)]})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    source = find_shards(tmp_path)
    with open_shard(source.root, source.shards[0]) as view:
        assert [view.read(i) for i in range(6)] == IMAGES
        with pytest.raises(OSError, match="has no row 6"):
            ImageReader(tmp_path).read(
                {"shard": "a.arrow", "offset": -1, "size": 0, "path": "row:6"}
            )
