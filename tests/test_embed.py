"""Images -> vectors on disk: each row its own, none lost, places and entities carried along."""

import sys
from collections import Counter
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import torch

import fruit
from conftest import write_tar
from labelled import candidate, pair, select_by_text, write_i2e
from openmofi import schema
from openmofi.config import EmbedSettings
from openmofi.embed import embed
from openmofi.embed.shard_embedder import ShardEmbedder
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError, MismatchError, SettingsError
from openmofi.model import load_model
from openmofi.pairs import ImageReader, formats
from openmofi.select import select
from openmofi.shards import commits, committed_files


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


def test_an_interrupted_run_leaves_the_old_file_and_the_same_call_goes_on(
    tmp_path, model, monkeypatch
):
    fruit.write_pairs(tmp_path / "in")
    embed(model, tmp_path / "in", out=tmp_path / "e.parquet")
    before = (tmp_path / "e.parquet").read_bytes()

    encode, batches = type(model).encode_pixels, []

    def die_at_the_second(self, pixels):
        batches.append(pixels)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return encode(self, pixels)

    monkeypatch.setattr(type(model), "encode_pixels", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        embed(model, tmp_path / "in", out=tmp_path / "e.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == before
    embed(model, tmp_path / "in", out=tmp_path / "e.parquet")
    assert len(batches) == 3  # the first of two shards was not encoded again
    assert (tmp_path / "e.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.parquet", "in"]


def test_a_folder_and_a_file_hold_the_same_rows(tmp_path, model):
    source = fruit.write_pairs(tmp_path / "in", shards=3)
    embed(model, source, out=tmp_path / "e.parquet")
    embed(model, source, out=tmp_path / "e")
    file, folder = (read_embeddings(tmp_path / name) for name in ("e.parquet", "e"))
    assert folder.rows.equals(file.rows, check_metadata=True)
    np.testing.assert_array_equal(folder.vectors, file.vectors)
    assert [path.parent.name for path in committed_files(tmp_path / "e")] == ["vectors"] * 3


def test_refused_images_stay_readable_with_their_reasons(tmp_path, model):
    write_tar(tmp_path / "a.tar", fruit.damaged_members())
    for out in ("e", "e.parquet"):
        embed(model, tmp_path / "a.tar", out=tmp_path / out)
    [commit] = commits(tmp_path / "e")
    rows = pq.read_table(tmp_path / "e" / commit.extra["refused"]).to_pylist()
    assert Counter(row["reason"] for row in rows) == commit.errors
    beside = csv.read_csv(tmp_path / "e.refused.csv").to_pylist()
    assert [row["key"] for row in beside] == [row["key"] for row in rows]


def test_a_shard_without_a_readable_image_takes_no_others_along(tmp_path, model):
    fruit.write_pairs(tmp_path / "in", shards=2)
    write_tar(tmp_path / "in/00.tar", {"1.jpg": b"", "1.txt": b"apple"})
    summary = embed(model, tmp_path / "in", out=tmp_path / "e")
    assert (summary.rows, summary.refused) == (24, {"corrupt_image": 1})
    assert read_embeddings(tmp_path / "e").vectors.shape == (24, model.dim)


@pytest.mark.parametrize("out", ["e", "e.parquet"])
def test_a_job_of_another_input_or_encoder_is_refused(tmp_path, nano_dir, model, monkeypatch, out):
    source = fruit.write_pairs(tmp_path / "in", shards=2)
    with monkeypatch.context() as patch, suppress(SystemExit):
        patch.setattr(ShardEmbedder, "__call__", lambda *_: sys.exit())
        embed(model, source, out=tmp_path / out)
    other = load_model(nano_dir)
    with torch.no_grad():
        other.network.visual_projection.weight.mul_(2)
    with pytest.raises(MismatchError, match="was begun with model_sha256 = '"):
        embed(other, source, out=tmp_path / out)
    write_tar(source / "0.tar", {"1.jpg": fruit.photo("red"), "1.txt": b"apple"})
    write_tar(source / "2.tar", {"1.jpg": fruit.photo("red"), "1.txt": b"apple"})
    with pytest.raises(MismatchError, match="2 input shards have changed"):
        embed(model, source, out=tmp_path / out)


def test_vectors_do_not_depend_on_the_number_of_threads(tmp_path, nano_dir):
    source = fruit.write_pairs(tmp_path / "in", shards=1, per_shard=150)
    before, found = torch.get_num_threads(), set()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            embed(nano_dir, source, out=tmp_path / "e.parquet")
            assert torch.get_num_threads() == threads
            found.add((tmp_path / "e.parquet").read_bytes())
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1


def test_two_ranks_share_a_folder_but_not_a_file(tmp_path, nano_dir):
    source = fruit.write_pairs(tmp_path / "in", shards=3)
    for rank in (0, 1):
        settings = EmbedSettings(engine="rank", rank=rank, world_size=2)
        with pytest.raises(SettingsError, match="Several ranks cannot write one file; give --out"):
            embed(nano_dir, source, out=tmp_path / "e.parquet", settings=settings)
        summary = embed(nano_dir, source, out=tmp_path / "e", settings=settings)
        assert summary.shards.done == 2 + rank
    assert len(read_embeddings(tmp_path / "e").rows) == 36


def test_an_unfinished_folder_is_read_and_says_so(tmp_path, model, capsys):
    embed(model, fruit.write_pairs(tmp_path / "in", shards=3), out=tmp_path / "e")
    (tmp_path / "e/_done/1.json").unlink()
    assert len(read_embeddings(tmp_path / "e").rows) == 24
    told = capsys.readouterr().err
    assert told.count("e: 1 shards have no vectors; see `openmofi status`") == 1


def test_labels_are_not_taken_for_vectors_nor_vectors_for_labels(tmp_path, model):
    i2e = write_i2e(tmp_path, [pair("a")])
    with pytest.raises(InputError, match="holds no vectors of a finished shard"):
        read_embeddings(i2e)
    embed(model, fruit.write_pairs(tmp_path / "in"), out=tmp_path / "e")
    with pytest.raises(InputError, match="holds no labels of a finished shard"):
        select(tmp_path / "e")


def test_a_selection_is_embedded_part_by_part_with_its_entities(tmp_path, model, monkeypatch):
    monkeypatch.setattr(formats, "_ROWS_OF_TABLES", 2)
    rows = [[pair(f"{s}{i}", candidate("red", z=3.0)) for i in range(3)] for s in range(3)]
    for row in (row for shard in rows for row in shard):
        (tmp_path / row["path"]).write_bytes(fruit.photo("red", int(row["key"])))
    kept = select_by_text(write_i2e(tmp_path, *rows), duplicates="keep").out
    summary = embed(model, kept, out=tmp_path / "e")
    found = read_embeddings(tmp_path / "e").rows
    assert (summary.shards.done, summary.rows) == (3, 9)
    assert found["id"].to_pylist() == pq.read_table(kept / "keep.parquet")["key"].to_pylist()
    assert found["entities"].to_pylist() == [["red"]] * 9
    assert found.schema.metadata[b"openmofi.selection"].decode() == str(kept)
