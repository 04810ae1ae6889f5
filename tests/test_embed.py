"""Images -> vectors on disk: each row its own, none lost, places and entities carried along."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import write_tar
from openmofi import schema
from openmofi.embed import embed
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError
from openmofi.model import load_model
from openmofi.pairs import ImageReader


@pytest.fixture(scope="module")
def model(nano_dir):
    return load_model(str(nano_dir))


@pytest.mark.parametrize("layout", ["tar", "listing", "folder", "parquet"])
def test_each_row_holds_the_vector_of_its_own_image(tmp_path, model, layout):
    source = tmp_path / "in"
    if layout == "tar":
        fruit.write_pairs(source, shards=2, per_shard=3)
    elif layout == "parquet":
        source.mkdir()
        images = [fruit.photo(fruit.NAMES[i % 3], i) for i in range(6)]
        table = pa.table({"caption": ["apple"] * 6, "image": images})
        pq.write_table(table, source / "a.parquet", row_group_size=4)
    else:
        fruit.write_listing(source, images=6)
        (source / "test.csv").unlink()
        if layout == "folder":
            (source / "captions.csv").unlink()
    embed(model, source, out=tmp_path / "e.parquet")
    found = read_embeddings(tmp_path / "e.parquet")
    rows, vectors = found.rows, found.vectors
    expected = model.encode_images([fruit.photo(fruit.NAMES[i % 3], i) for i in range(6)])
    np.testing.assert_allclose(vectors, expected, atol=1e-3)
    reader = ImageReader(source)
    assert reader.read(rows.to_pylist()[4]) == fruit.photo("green", 4)


def test_the_columns_are_those_of_the_schema(tmp_path, model):
    embed(model, fruit.write_pairs(tmp_path / "in"), out=tmp_path / "e.parquet")
    assert pq.read_schema(tmp_path / "e.parquet").equals(schema.embeddings(model.dim))


def test_a_model_is_remembered_by_a_name_that_holds_everywhere(tmp_path, nano_dir, monkeypatch):
    fruit.write_pairs(tmp_path / "in")
    monkeypatch.chdir(nano_dir.parent)
    embed(nano_dir.name, tmp_path / "in", out=tmp_path / "e.parquet")
    stored = pq.read_schema(tmp_path / "e.parquet").metadata
    assert stored[b"openmofi.model"].decode() == str(nano_dir)


def test_bad_images_are_counted_by_reason_and_good_ones_stay(tmp_path, model):
    write_tar(tmp_path / "a.tar", fruit.damaged_members())
    summary = embed(model, tmp_path / "a.tar", out=tmp_path / "e.parquet")
    reasons = {"corrupt_image": 3, "image_too_large": 2, "image_too_narrow": 1, "no_image": 1}
    assert summary.refused == reasons
    assert summary.rows + sum(reasons.values()) == len(fruit.damaged_keys())


def test_nothing_readable_writes_nothing(tmp_path, model):
    write_tar(tmp_path / "a.tar", {"1.jpg": b"", "1.txt": b"apple"})
    with pytest.raises(InputError, match="corrupt_image 1"):
        embed(model, tmp_path / "a.tar", out=tmp_path / "out" / "e.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupted_run_leaves_the_old_file(tmp_path, model, monkeypatch):
    fruit.write_pairs(tmp_path / "in")
    embed(model, tmp_path / "in", out=tmp_path / "e.parquet")
    before = (tmp_path / "e.parquet").read_bytes()

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(model), "encode_pixels", die)
    with pytest.raises(KeyboardInterrupt):
        embed(model, tmp_path / "in", out=tmp_path / "e.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "in"]
