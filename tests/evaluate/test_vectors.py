"""Vectors from a model with its cache, and from files: the same images, the same rows."""

import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

import fruit
from conftest import write_tar
from openmofi import progress
from openmofi.config import EmbedSettings
from openmofi.embed import embed
from openmofi.errors import InputError
from openmofi.evaluate import evaluate, vectors
from openmofi.evaluate.cache import VectorCache, content_key, model_folder
from openmofi.evaluate.data import file_places
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.vectors import FileVectors, ModelVectors

FULL = EmbedSettings(precision="fp32")
"""As `evaluate` encodes."""


@pytest.fixture
def photos(tmp_path):
    for number in range(6):
        folder = tmp_path / "photos" / fruit.NAMES[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.jpg").write_bytes(fruit.photo(folder.name, number))
    return tmp_path / "photos"


def _source(nano_dir, cache=None):
    return ModelVectors(str(nano_dir), device="cpu", cache=cache)


def _count_pixels(source):
    """Returns a list that notes how many images each forward pass has."""
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


def test_a_second_evaluation_encodes_nothing(nano_dir, photos, tmp_path, monkeypatch, capsys):
    images = open_labelled(photos)
    first = _source(nano_dir, tmp_path / "cache").images(images.places, "photos")
    source = _source(nano_dir, tmp_path / "cache")
    counts = _count_pixels(source)
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    second = source.images(images.places, "photos")
    assert counts == []
    assert "/s" not in capsys.readouterr().err  # looking it up is no speed
    np.testing.assert_array_equal(first.vectors, second.vectors)


@pytest.mark.parametrize(("every", "seconds"), [(2, 1e9), (99, 0.0)])
def test_an_interrupted_evaluation_goes_on(nano_dir, photos, tmp_path, monkeypatch, every, seconds):
    monkeypatch.setattr(vectors, "_BATCH", 2)
    monkeypatch.setattr(vectors, "_STORE_EVERY", every)
    monkeypatch.setattr(vectors, "_STORE_SECONDS", seconds)
    places = open_labelled(photos).places
    expected = _source(nano_dir).images(places, "photos")
    source = _source(nano_dir, tmp_path / "cache")
    encode, left = source.model.encode_pixels, iter([True, True])
    source.model.encode_pixels = lambda pixels: next(left) and encode(pixels)
    with pytest.raises(StopIteration):
        source.images(places, "photos")
    again = _source(nano_dir, tmp_path / "cache")
    counts = _count_pixels(again)
    found = again.images(places, "photos")
    assert counts == [2]
    np.testing.assert_array_equal(found.vectors, expected.vectors)


def test_a_changed_image_is_encoded_again_and_a_moved_one_is_not(nano_dir, photos, tmp_path):
    _source(nano_dir, tmp_path / "cache").images(open_labelled(photos).places, "photos")
    (photos / "red" / "0.jpg").write_bytes(fruit.photo("red", 77))
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


def test_a_part_of_an_image_has_its_own_vector(nano_dir, photos, tmp_path):
    files = ["red/0.jpg", "red/0.jpg"]
    places = file_places(photos, files, crops=[(0, 0, 10, 10), (5, 5, 30, 30)])
    source = _source(nano_dir, tmp_path / "cache")
    for _ in range(2):  # fresh, then from the cache
        found = source.images(places, "parts")
        with Image.open(photos / files[0]) as image:
            parts = [image.crop(box) for box in ((0, 0, 10, 10), (5, 5, 30, 30))]
        np.testing.assert_allclose(found.vectors, source.model.encode_images(parts), atol=1e-5)


def test_unreadable_images_are_counted_by_reason_and_left_out(nano_dir, photos):
    (photos / "red" / "bad.jpg").write_bytes(b"no image")
    images = open_labelled(photos)
    (photos / "lime" / "2.jpg").unlink()
    found = _source(nano_dir).images(images.places, "photos")
    assert found.refused == {"corrupt_image": 1, "image_missing": 1}
    names = images.places.table["path"].to_pylist()
    left = [names[row] for row in found.rows]
    assert "red/bad.jpg" not in left
    assert "lime/2.jpg" not in left
    assert len(left) == len(found.vectors) == 5


KEYS = [content_key(bytes([n])) for n in range(3)]
UNIT = np.array([[1, 0, 0, 0], [0, 0.6, 0, 0.8], [0, 0, -0.6, 0.8]], np.float32)


@pytest.fixture
def stored(tmp_path):
    """A cache of three vectors in the test's folder."""
    VectorCache(tmp_path, 4).put(KEYS, UNIT)


def _found(folder, dim=4):
    """Returns which of the three vectors a cache gives, checked."""
    cache = VectorCache(folder, dim)
    for key, vector in zip(KEYS, UNIT, strict=True):
        if (found := cache.get(key)) is not None:
            np.testing.assert_array_equal(found, vector)
    return [number for number, key in enumerate(KEYS) if cache.get(key) is not None]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda rows: rows, [0, 1, 2]),
        (lambda rows: rows * np.float32([[1], [2], [1]]), [0, 2]),
        (lambda rows: rows * np.float32([[1], [1], [-1]]), [0, 1]),  # of unit length, as below
        (lambda rows: rows[::-1].copy(), [1]),
        (lambda rows: rows.astype(np.float16), []),
        (lambda rows: rows.astype(np.float64), []),
        (lambda rows: rows[:2], []),
        (lambda rows: rows[:, :3], []),
        (lambda rows: rows[0, 0], []),
    ],
)
def test_vectors_of_the_cache_that_were_changed_are_not_given(tmp_path, stored, change, left):
    [path] = tmp_path.glob("*.vectors.npy")
    np.save(path, change(np.load(path)))
    assert _found(tmp_path) == left


@pytest.mark.parametrize("kind", ["vectors", "keys"])
@pytest.mark.parametrize("data", [b"", b"PK\3\4 no archive", b"PK", b"\x93NUMPY", bytes(300)])
def test_damaged_files_of_the_cache_are_passed_over(tmp_path, stored, kind, data):
    [path] = tmp_path.glob(f"*.{kind}.npy")
    path.write_bytes(data)
    assert _found(tmp_path) == []
    VectorCache(tmp_path, 4).put(KEYS, UNIT)
    assert _found(tmp_path) == [0, 1, 2]


@pytest.mark.parametrize("kind", ["vectors", "keys"])
def test_no_changed_byte_of_the_cache_goes_unnoticed_or_ends_the_work(tmp_path, stored, kind):
    [path] = tmp_path.glob(f"*.{kind}.npy")
    data = path.read_bytes()
    for place in range(len(data)):
        for value in (data[place] ^ 1, data[place] ^ 128):
            path.write_bytes(data[:place] + bytes([value]) + data[place + 1 :])
            _found(tmp_path)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        assert _found(tmp_path) == []


def test_a_cache_of_vectors_of_another_width_has_nothing(tmp_path, stored):
    assert _found(tmp_path, dim=5) == []


def test_of_several_vectors_of_an_image_the_newest_counts(tmp_path):
    seen = set()
    for number in range(6):  # the files' names are random, so that their order is not a help
        VectorCache(tmp_path, 4).put(KEYS[:1], UNIT[number % 3 :][:1])
        [new] = set(tmp_path.glob("*.keys.npy")) - seen
        seen.add(new)
        os.utime(new, (number, number))
        np.testing.assert_array_equal(VectorCache(tmp_path, 4).get(KEYS[0]), UNIT[number % 3])


def test_a_model_has_a_folder_per_transform_and_kind_of_device(nano_dir, tmp_path):
    model = _source(nano_dir).model
    mean = replace(model.transform, mean=(0.5, 0.5, 0.4))
    others = [
        SimpleNamespace(transform=transform, device=torch.device(device))
        for transform, device in ((model.transform, "cuda"), (mean, "cpu"), (mean, "cuda"))
    ]
    folders = [model_folder(tmp_path, str(nano_dir), m) for m in (model, *others)]
    assert len(set(folders)) == 4
    assert model_folder(tmp_path, str(nano_dir), _source(nano_dir).model) == folders[0]


def test_a_file_of_embed_gives_the_models_vectors(nano_dir, photos, tmp_path):
    embed(str(nano_dir), photos, out=tmp_path / "e.parquet", settings=FULL)
    images = open_labelled(photos)
    source = FileVectors(tmp_path / "e.parquet")
    found = source.images(images.places, "photos")
    plain = _source(nano_dir).images(images.places, "photos")
    np.testing.assert_allclose(found.vectors, plain.vectors, atol=2e-3)  # fp16
    assert found.rows.tolist() == plain.rows.tolist()
    assert source.name == str(nano_dir.resolve())


def test_images_that_the_file_lacks_are_counted_and_most_of_them_lacking_is_refused(
    nano_dir, photos, tmp_path
):
    embed(str(nano_dir), photos, out=tmp_path / "e.parquet", settings=FULL)
    (photos / "red" / "new.jpg").write_bytes(fruit.photo("red", 9))
    found = FileVectors(tmp_path / "e.parquet").images(open_labelled(photos).places, "photos")
    assert found.refused == {"not_in_embeddings": 1}
    other = file_places(photos, ["a.jpg", "b.jpg", "red/0.jpg"])
    with pytest.raises(InputError, match="has vectors of 1 of the 3 images of 'other'"):
        FileVectors(tmp_path / "e.parquet").images(other, "other")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((5, 4), np.float32), "holds 5 vectors but 'photos' has 6 images"),
        (np.full((6, 4), np.nan, np.float32), "6 of the 6 vectors .* hold NaN"),
        (np.zeros((6, 4), np.float32), "6 of the 6 vectors"),
        (np.ones(6, np.float32), r"of shape \(6,\)"),
        (np.ones((6, 4), np.int64), "holds int64"),
        (np.array([[None] * 4] * 6), "is not a readable .npy"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(photos, tmp_path, array, message):
    np.save(tmp_path / "e.npy", array)
    with pytest.raises(InputError, match=message):
        FileVectors(tmp_path / "e.npy").images(open_labelled(photos).places, "photos")


def test_a_file_has_no_parts_of_images(photos, tmp_path):
    np.save(tmp_path / "e.npy", np.ones((1, 4), np.float32))
    places = file_places(photos, ["red/0.jpg"], crops=[(0, 0, 4, 4)])
    with pytest.raises(InputError, match="are parts of images"):
        FileVectors(tmp_path / "e.npy").images(places, "queries")


def test_two_vectors_of_one_image_are_refused(nano_dir, photos, tmp_path):
    import pyarrow.parquet as pq

    embed(str(nano_dir), photos, out=tmp_path / "e.parquet", settings=FULL)
    table = pq.read_table(tmp_path / "e.parquet")
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), tmp_path / "e.parquet")
    with pytest.raises(InputError, match="several vectors for one image"):
        FileVectors(tmp_path / "e.parquet").images(open_labelled(photos).places, "photos")


def test_several_files_are_one_and_models_are_not_mixed(nano_dir, photos, tmp_path):
    for name in ("red", "lime", "green"):
        embed(str(nano_dir), photos / name, out=tmp_path / f"{name}.parquet", settings=FULL)
    places = file_places(photos / "red", ["0.jpg", "3.jpg"])
    files = [tmp_path / f"{name}.parquet" for name in ("red", "lime", "green")]
    found = FileVectors(*files).images(places, "red")
    assert found.rows.tolist() == [0, 1]
    other = tmp_path / "other"
    shutil.copytree(nano_dir, other)
    embed(str(other), photos / "red", out=tmp_path / "other.parquet", settings=FULL)
    with pytest.raises(InputError, match="of several models"):
        FileVectors(files[0], tmp_path / "other.parquet")


def _wds(folder, labels):
    """Writes a split whose keys begin at 0, as those of every split do."""
    folder.mkdir(parents=True)
    members = {}
    for number, label in enumerate(labels):
        members[f"s{number:07d}.cls"] = label.encode()
        members[f"s{number:07d}.jpg"] = fruit.photo(
            fruit.NAMES[int(label)], number + 50 * (folder.name == "train")
        )
    write_tar(folder / "0.tar", members)


def test_vectors_of_one_split_never_serve_another_with_the_same_keys(nano_dir, tmp_path):
    for split in ("test", "train"):
        _wds(tmp_path / "data" / split, "012012")
        embed(
            str(nano_dir),
            tmp_path / "data" / split,
            out=tmp_path / f"{split}.parquet",
            settings=FULL,
        )
    (tmp_path / "data" / "classnames.txt").write_text("red\ngreen\nlime\n")
    data = {"d": tmp_path / "data"}
    with pytest.raises(InputError, match="has vectors of 0 of the 6 images of 'd gallery'"):
        evaluate(data=data, embeddings=tmp_path / "test.parquet")
    files = [tmp_path / "test.parquet", tmp_path / "train.parquet"]
    [scores] = evaluate(data=data, embeddings=files)
    [expected] = evaluate(str(nano_dir), data=data, benchmarks=["retrieval", "knn"])
    assert scores.metrics == pytest.approx(expected.metrics)


def test_an_array_is_refused_where_there_are_two_splits(tmp_path):
    for split in ("test", "train"):
        _wds(tmp_path / "data" / split, "012")
    (tmp_path / "data" / "classnames.txt").write_text("red\ngreen\nlime\n")
    np.save(tmp_path / "e.npy", np.eye(3, dtype=np.float32))
    with pytest.raises(InputError, match="does not say which split"):
        evaluate(data={"d": tmp_path / "data"}, embeddings=tmp_path / "e.npy")


def test_other_images_of_the_same_names_are_other_images(nano_dir, photos, tmp_path):
    embed(str(nano_dir), photos, out=tmp_path / "e.parquet", settings=FULL)
    shutil.copytree(photos, tmp_path / "copy")
    with pytest.raises(InputError, match="has vectors of 0 of the 6"):
        evaluate(data={"d": tmp_path / "copy"}, embeddings=tmp_path / "e.parquet")
    photos.rename(tmp_path / "moved")  # as on another machine: then the place within counts
    [scores] = evaluate(data={"d": tmp_path / "moved"}, embeddings=tmp_path / "e.parquet")
    assert scores.images == 6
