import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import write_tar
from openmofi.config import EvaluationSettings
from openmofi.errors import InputError
from openmofi.train.class_lists import ClassLists, flat_lists
from openmofi.train.data import open_train_data
from selected import write_selected


def test_data_without_any_usable_row_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.txt": b"words"})
    with pytest.raises(InputError, match="holds no usable image"):
        open_train_data(path)


def test_labels_that_the_vocabulary_does_not_hold_are_refused(tmp_path):
    path = write_selected(tmp_path)
    vocabulary = pq.read_table(path / "vocabulary.parquet").slice(0, 2)
    pq.write_table(vocabulary, path / "vocabulary.parquet")
    with pytest.raises(InputError, match="with class 2 but its vocabulary has 2"):
        open_train_data(path)


def test_an_image_without_a_class_is_refused(tmp_path):
    path = write_selected(tmp_path)
    keep = pq.read_table(path / "keep.parquet")
    classes = pa.array([[], *keep["classes"].to_pylist()[1:]], pa.list_(pa.int64()))
    pq.write_table(keep.drop("classes").append_column("classes", classes), path / "keep.parquet")
    with pytest.raises(InputError, match="1 images without a class"):
        open_train_data(path)


def test_an_image_without_a_caption_has_an_empty_one(tmp_path):
    path = write_selected(tmp_path)
    keep = pq.read_table(path / "keep.parquet")
    captions = pa.array([None, *keep["caption"].to_pylist()[1:]], pa.string())
    keep = keep.set_column(keep.column_names.index("caption"), "caption", captions)
    pq.write_table(keep, path / "keep.parquet")
    assert next(open_train_data(path).texts()) == ""


@given(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=9), st.data())
def test_class_lists_are_the_lists(lists, data):
    flat = ClassLists.of(lists)
    column = pa.chunked_array([pa.array(lists, pa.list_(pa.int64()))])
    for one, other in zip(flat_lists(column), (flat.starts, flat.values), strict=True):
        np.testing.assert_array_equal(one, other)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1)))
    longest = max(1, *map(len, lists))
    wanted = [lists[row] + [-1] * (longest - len(lists[row])) for row in rows]
    np.testing.assert_array_equal(flat.padded(rows), wanted)


def test_a_split_shares_the_images_out_and_can_be_repeated(tmp_path):
    data = open_train_data(write_selected(tmp_path))
    learnt, held_out, _ = data.split(EvaluationSettings(holdout=0.25), seed=1)
    assert len(held_out) == 6
    offsets = [
        set(part.records(np.arange(len(part)))["offset"].to_pylist()) for part in (learnt, held_out)
    ]
    assert offsets[0] | offsets[1] == set(data.source["offset"].to_pylist())
    assert not offsets[0] & offsets[1]
    again, other = (data.split(EvaluationSettings(holdout=0.25), seed=n).held_out for n in (1, 2))
    assert again.rows.listed.tolist() == held_out.rows.listed.tolist()
    assert other.rows.listed.tolist() != held_out.rows.listed.tolist()
    row = held_out.rows.listed[0]
    np.testing.assert_array_equal(held_out.targets(np.array([0])), data.targets(np.array([row])))


def test_the_fingerprint_tells_of_every_change(tmp_path):
    data = open_train_data(write_selected(tmp_path))
    again = open_train_data(tmp_path / "select")
    assert data.fingerprint() == again.fingerprint()
    order = np.arange(len(data))[::-1]
    assert data.take(order).fingerprint() != data.fingerprint()
    assert data.take(order).fingerprint() == again.take(order).fingerprint()
