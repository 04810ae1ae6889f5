"""Vectors from a model with its cache, and from files: the same pictures, the same rows."""

import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import fruit
from openmofi.embed import embed
from openmofi.errors import InputError
from openmofi.evaluate.cache import VectorCache, content_key
from openmofi.evaluate.data import file_places
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.vectors import FileVectors, ModelVectors


@pytest.fixture
def photos(tmp_path):
    for number in range(6):
        folder = tmp_path / "photos" / fruit.NAMES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(fruit.picture(folder.name, number))
    return tmp_path / "photos"


def _source(nano_dir, cache=None):
    return ModelVectors(str(nano_dir), device="cpu", cache=cache)


def _count_pixels(source):
    """Returns a list that notes how many pictures each forward pass has."""
    counts, encode = [], source.model.encode_pixels

    def counted(pixels):
        counts.append(len(pixels))
        return encode(pixels)

    source.model.encode_pixels = counted
    return counts


def test_vectors_are_the_models_own(nano_dir, photos):
    source, images = _source(nano_dir), open_labelled(photos)
    found = source.images(images.places, "photos")
    files = [photos / name for name in images.places.table["path"].to_pylist()]
    np.testing.assert_allclose(found.vectors, source.model.encode_images(files), atol=1e-6)
    assert found.rows.tolist() == list(range(6))
    assert found.refused == {}


def test_a_second_evaluation_encodes_nothing(nano_dir, photos, tmp_path):
    images = open_labelled(photos)
    first = _source(nano_dir, tmp_path / "cache").images(images.places, "photos")
    source = _source(nano_dir, tmp_path / "cache")
    counts = _count_pixels(source)
    second = source.images(images.places, "photos")
    assert counts == []
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_a_changed_picture_is_encoded_again_and_a_moved_one_is_not(nano_dir, photos, tmp_path):
    _source(nano_dir, tmp_path / "cache").images(open_labelled(photos).places, "photos")
    (photos / "red" / "0.jpg").write_bytes(fruit.picture("red", 77))
    shutil.move(photos / "lime", photos / "limes")
    source = _source(nano_dir, tmp_path / "cache")
    counts = _count_pixels(source)
    found = source.images(open_labelled(photos).places, "photos")
    assert counts == [1]
    plain = _source(nano_dir).images(open_labelled(photos).places, "photos")
    np.testing.assert_allclose(found.vectors, plain.vectors, atol=1e-5)


def test_another_model_does_not_get_this_ones_vectors(nano_dir, photos, tmp_path):
    _source(nano_dir, tmp_path / "cache").images(open_labelled(photos).places, "photos")
    other = tmp_path / "other"
    shutil.copytree(nano_dir, other)
    (other / "note.txt").write_text("not the same files")
    source = _source(other, tmp_path / "cache")
    counts = _count_pixels(source)
    source.images(open_labelled(photos).places, "photos")
    assert counts == [6]


def test_a_part_of_a_picture_has_its_own_vector(nano_dir, photos, tmp_path):
    files = ["red/0.jpg", "red/0.jpg"]
    places = file_places(photos, files, crops=[(0, 0, 10, 10), (5, 5, 30, 30)])
    source = _source(nano_dir, tmp_path / "cache")
    for _ in range(2):  # fresh, then from the cache
        found = source.images(places, "parts")
        with Image.open(photos / files[0]) as picture:
            parts = [picture.crop(box) for box in ((0, 0, 10, 10), (5, 5, 30, 30))]
        np.testing.assert_allclose(found.vectors, source.model.encode_images(parts), atol=1e-5)


def test_unreadable_pictures_are_counted_by_reason_and_left_out(nano_dir, photos):
    (photos / "red" / "bad.jpg").write_bytes(b"no picture")
    images = open_labelled(photos)
    (photos / "lime" / "2.jpg").unlink()
    found = _source(nano_dir).images(images.places, "photos")
    assert found.refused == {"corrupt_image": 1, "image_missing": 1}
    names = images.places.table["path"].to_pylist()
    left = [names[row] for row in found.rows]
    assert "red/bad.jpg" not in left
    assert "lime/2.jpg" not in left
    assert len(left) == len(found.vectors) == 5


def test_damaged_parts_of_the_cache_are_computed_again(tmp_path):
    keys = [content_key(bytes([n])) for n in range(3)]
    vectors = np.eye(3, 4, dtype=np.float32)
    VectorCache(tmp_path, 4).put(keys, vectors)
    [stored] = tmp_path.glob("*.vectors.npy")
    rows = np.load(stored)
    rows[1] *= 2
    np.save(stored, rows)
    cache = VectorCache(tmp_path, 4)
    np.testing.assert_array_equal(cache.get(keys[0]), vectors[0])
    assert cache.get(keys[1]) is None
    stored.write_bytes(stored.read_bytes()[:150])
    assert VectorCache(tmp_path, 4).get(keys[0]) is None
    assert VectorCache(tmp_path, 5).get(keys[0]) is None


def test_a_file_of_embed_gives_the_models_vectors(nano_dir, photos, tmp_path):
    embed(str(nano_dir), photos, out=tmp_path / "e.parquet")
    images = open_labelled(photos)
    source = FileVectors(tmp_path / "e.parquet")
    found = source.images(images.places, "photos")
    plain = _source(nano_dir).images(images.places, "photos")
    np.testing.assert_allclose(found.vectors, plain.vectors, atol=2e-3)  # fp16
    assert found.rows.tolist() == plain.rows.tolist()
    assert source.name == str(nano_dir.resolve())


def test_pictures_that_the_file_lacks_are_counted_and_most_of_them_lacking_is_refused(
    nano_dir, photos, tmp_path
):
    embed(str(nano_dir), photos, out=tmp_path / "e.parquet")
    (photos / "red" / "new.jpg").write_bytes(fruit.picture("red", 9))
    found = FileVectors(tmp_path / "e.parquet").images(open_labelled(photos).places, "photos")
    assert found.refused == {"not_in_embeddings": 1}
    other = file_places(tmp_path, ["a.jpg", "b.jpg", "red/0.jpg"])
    with pytest.raises(InputError, match="has 1 of the 3 pictures of 'other'"):
        FileVectors(tmp_path / "e.parquet").images(other, "other")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((5, 4), np.float32), "holds 5 vectors but 'photos' has 6 pictures"),
        (np.full((6, 4), np.nan, np.float32), "6 of the 6 vectors .* hold NaN"),
        (np.zeros((6, 4), np.float32), "6 of the 6 vectors"),
        (np.ones(6, np.float32), r"of shape \(6,\)"),
        (np.ones((6, 4), np.int64), "holds int64"),
        (np.array([[None] * 4] * 6), "no readable .npy"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(photos, tmp_path, array, message):
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(InputError, match=message):
        FileVectors(tmp_path / "e.npy").images(open_labelled(photos).places, "photos")


def test_a_file_has_no_parts_of_pictures(photos, tmp_path):
    np.save(tmp_path / "e.npy", np.ones((1, 4), np.float32))
    places = file_places(photos, ["red/0.jpg"], crops=[(0, 0, 4, 4)])
    with pytest.raises(InputError, match="are parts of pictures"):
        FileVectors(tmp_path / "e.npy").images(places, "queries")


def test_two_vectors_of_one_picture_are_refused(nano_dir, photos, tmp_path):
    import pyarrow.parquet as pq

    embed(str(nano_dir), photos, out=tmp_path / "e.parquet")
    table = pq.read_table(tmp_path / "e.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), tmp_path / "e.parquet")
    with pytest.raises(InputError, match="several vectors for one picture"):
        FileVectors(tmp_path / "e.parquet").images(open_labelled(photos).places, "photos")


def test_several_files_are_one_and_models_are_not_mixed(nano_dir, photos, tmp_path):
    for name in ("red", "lime", "green"):
        embed(str(nano_dir), photos / name, out=tmp_path / f"{name}.parquet")
    places = file_places(photos / "red", ["0.jpg", "3.jpg"])
    files = [tmp_path / f"{name}.parquet" for name in ("red", "lime", "green")]
    found = FileVectors(*files).images(places, "red")
    assert found.rows.tolist() == [0, 1]
    other = tmp_path / "other"
    shutil.copytree(nano_dir, other)
    embed(str(other), photos / "red", out=tmp_path / "other.parquet")
    with pytest.raises(InputError, match="of several models"):
        FileVectors(files[0], tmp_path / "other.parquet")
