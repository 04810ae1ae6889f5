"""Parquet files and saved Hugging Face datasets as evaluation data."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from openmofi.errors import InputError
from openmofi.evaluate.tables import is_table, open_table
from openmofi.pairs import ImageReader

NAMES = ["red_apple", "green", "lime"]


def _table(labels, column="label", *, image="image", names=None):
    images = [fruit.photo(fruit.NAMES[i % 3], i) for i in range(len(labels))]
    cells = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)]
    table = pa.table({image: cells, column: labels})
    if names is None:
        return table
    features = {column: {"names": names, "_type": "ClassLabel"}}
    text = json.dumps({"info": {"features": features}})
    return table.replace_schema_metadata({"huggingface": text})


def _parquet(folder, splits, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for split, labels in splits.items():
        table = _table(labels, **options)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=2)
    return folder


def _saved(folder, splits, **options):
    """Writes what DatasetDict.save_to_disk does."""
    for split, labels in splits.items():
        (folder / split).mkdir(parents=True)
        table = _table(labels, **options)
        with pa.ipc.new_stream(folder / split / "data-00000-of-00001.arrow", table.schema) as out:
            out.write_table(table, max_chunksize=2)
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (folder / split / "state.json").write_text(json.dumps(state))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def _images(found):
    reader = ImageReader(found.places.root)
    return [reader.read(row) for row in found.places.table.to_pylist()]


@pytest.mark.parametrize("write", [_parquet, _saved])
@pytest.mark.parametrize("test", ["test", "validation"])
def test_the_test_split_is_evaluated_and_train_is_the_gallery(tmp_path, write, test):
    write(tmp_path / "d", {test: [0, 1, 2, 0, 1], "train": [0, 1]}, names=NAMES)
    found = open_table(tmp_path / "d")
    assert is_table(tmp_path / "d")
    assert found.labels == ("0", "1", "2", "0", "1")
    assert found.gallery.labels == ("0", "1")
    assert found.class_names == {"0": "red apple", "1": "green", "2": "lime"}
    assert _images(found) == [fruit.photo(fruit.NAMES[i % 3], i) for i in range(5)]


def test_the_hubs_data_folder_is_found_from_its_parent(tmp_path):
    _parquet(tmp_path / "data", {"test": ["a", "b"], "train": ["c"]})
    found = open_table(tmp_path)
    assert (found.labels, found.gallery.labels, found.class_names) == (("a", "b"), ("c",), {})
    assert len(_images(found)) == 2


def test_files_and_single_splits_are_evaluated_whole(tmp_path):
    folder = _parquet(tmp_path, {"train": [3, 4]})
    found = open_table(folder / "train-00000-of-00001.parquet")
    assert (found.labels, found.gallery) == (("3", "4"), None)
    _saved(tmp_path / "saved", {"train": [5, 6]})
    assert open_table(tmp_path / "saved" / "train").labels == ("5", "6")


def test_several_files_of_a_split_stand_in_order(tmp_path):
    for i in range(3):
        pq.write_table(_table([i, i]), tmp_path / f"test-0000{i}-of-00003.parquet")
    assert open_table(tmp_path).labels == ("0", "0", "1", "1", "2", "2")
    assert open_table(tmp_path).places.table["path"].to_pylist() == ["row:0", "row:1"] * 3


def test_cifars_columns_are_known(tmp_path):
    _parquet(tmp_path, {"test": [1, 0]}, column="fine_label", image="img", names=NAMES)
    assert open_table(tmp_path).labels == ("1", "0")


@pytest.mark.parametrize("column", ["caption", "captions", "sentences", "text"])
def test_captions_are_one_or_several(tmp_path, column):
    _parquet(tmp_path / "one", {"test": ["a lime", "lime"]}, column=column)
    _parquet(tmp_path / "many", {"test": [["a lime", "lime"], ["apple"]]}, column=column)
    assert open_table(tmp_path / "one").captions == (("a lime",), ("lime",))
    assert open_table(tmp_path / "many").captions == (("a lime", "lime"), ("apple",))


@pytest.mark.parametrize("labels", [[0, None, 1, None], [0, -1, 1, -1], ["a", "", "b", None]])
def test_absent_labels_are_refused_with_their_count(tmp_path, labels):
    with pytest.raises(InputError, match=r"2 of 4 rows .* no usable label, the first is row 1"):
        open_table(_parquet(tmp_path, {"test": labels}))


@pytest.mark.parametrize("captions", [["a", None, " "], [["a"], [], [None]]])
def test_absent_captions_are_refused_with_their_count(tmp_path, captions):
    with pytest.raises(InputError, match=r"2 of 3 rows .* no usable caption, the first is row 1"):
        open_table(_parquet(tmp_path, {"test": captions}, column="caption"))


def test_a_label_beyond_the_class_names_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"1 of 2 rows .* row 1 with 3"):
        open_table(_parquet(tmp_path, {"test": [0, 3]}, names=NAMES))


@pytest.mark.parametrize("labels", [[0.5, 1.0], [[1], [2]]])
def test_labels_of_other_types_are_refused(tmp_path, labels):
    with pytest.raises(InputError, match="expected a number or a text"):
        open_table(_parquet(tmp_path, {"test": labels}))


def test_splits_that_name_classes_differently_are_refused(tmp_path):
    _parquet(tmp_path, {"test": [0, 1]}, names=NAMES)
    _parquet(tmp_path, {"train": [0, 1]}, names=NAMES[::-1])
    with pytest.raises(InputError, match="name their classes differently"):
        open_table(tmp_path)


def test_a_training_split_alone_and_several_configurations_are_refused(tmp_path):
    with pytest.raises(InputError, match="has only the split train"):
        open_table(_parquet(tmp_path / "a", {"train": [0, 1]}))
    for name in ("one", "two"):
        _parquet(tmp_path / "b" / name, {"test": [0, 1]})
    with pytest.raises(InputError, match=r"several folders \(one, two\)"):
        open_table(tmp_path / "b")


def test_tables_without_images_or_truth_are_refused(tmp_path):
    _parquet(tmp_path, {"test": [0, 1]}, column="size")
    with pytest.raises(InputError, match="has the columns image, size; expected images"):
        open_table(tmp_path)


def test_damaged_files_are_refused(tmp_path):
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        open_table(tmp_path)
    file = _saved(tmp_path / "s", {"test": [0, 1, 2, 3]}) / "test" / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:-900])
    with pytest.raises(InputError, match="ends early"):
        open_table(tmp_path / "s")


def test_folders_of_images_are_no_tables(tmp_path):
    fruit.write_listing(tmp_path)
    assert open_table(tmp_path) is None
    assert not is_table(tmp_path / "000.jpg")


def test_images_may_be_files_that_a_table_names_as_label_reads_them(tmp_path):
    (tmp_path / "d/images").mkdir(parents=True)
    for number in range(4):
        (tmp_path / f"d/images/{number}.jpg").write_bytes(fruit.photo("lime", number))
    files = ["images/0.jpg", "images/1.jpg", str(tmp_path / "d/images/2.jpg"), "gone.jpg"]
    pq.write_table(pa.table({"image_path": files, "label": [0, 1, 0, 1]}), tmp_path / "d/t.parquet")
    found = open_table(tmp_path / "d")
    reader = ImageReader(found.places.root)
    rows = found.places.table.to_pylist()
    assert [reader.read(row) for row in rows[:3]] == [fruit.photo("lime", i) for i in range(3)]
    with pytest.raises(OSError, match="gone"):
        reader.read(rows[3])
    nested = {"image": files[:2], "caption": ["a", "b"]}
    (tmp_path / "d/t.parquet").unlink()
    (tmp_path / "d/test").mkdir()
    pq.write_table(pa.table(nested), tmp_path / "d/test/t.parquet")
    places = open_table(tmp_path / "d").places.table
    assert places["path"].to_pylist() == ["test/images/0.jpg", "test/images/1.jpg"]
