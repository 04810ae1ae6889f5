"""The labelling job on a tiny world: every row, every candidate, every term, every time."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import fruit
from conftest import write_tar
from openmofi.config import LabelSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import encoder, label
from openmofi.label.encoder import cores, default_workers
from openmofi.model import load_model
from openmofi.schema import LABELS
from openmofi.shards import commits, committed_files

pytestmark = pytest.mark.slow

SETTINGS = LabelSettings(background=16, batch_size=5, workers=1, keep_embeddings=True)


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kb")
    build_kb(fruit.write_catalogue(folder), out=folder / "kb")
    return folder / "kb"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return fruit.write_pairs(tmp_path_factory.mktemp("pairs"), shards=4, per_shard=9)


@pytest.fixture(scope="module")
def i2e(tmp_path_factory, pairs, kb, nano_dir):
    out = tmp_path_factory.mktemp("i2e")
    label(pairs, kb=kb, model=str(nano_dir), out=out, settings=SETTINGS)
    return out


def _rows(i2e):
    return [row for file in committed_files(i2e) for row in pq.read_table(file).to_pylist()]


def _digests(i2e):
    return {commit.shard: commit.sha256 for commit in commits(i2e)}


def test_every_pair_has_a_row_in_input_order_with_all_its_candidates(i2e):
    rows = _rows(i2e)
    assert [row["key"] for row in rows] == [f"{i:03d}" for i in range(36)]
    ids = [sorted(entity["id"] for entity in row["entities"]) for row in rows[:3]]
    assert ids == [["red"], ["green", "red"], ["lime"]]
    assert all(pq.read_schema(file).equals(LABELS) for file in committed_files(i2e))


def test_the_cosine_is_that_of_image_and_entity_text(i2e, kb, nano_dir, pairs):
    model, opened = load_model(str(nano_dir), precision="auto"), KnowledgeBase.open(kb)
    row = _rows(i2e)[1]
    image = model.encode_images([fruit.photo("green", 1)])
    for entity in row["entities"]:
        text = model.encode_texts(opened.entity_text([opened.row_of(entity["id"])]))
        assert entity["clip"] == pytest.approx(float(image[0] @ text[0]), abs=1e-3)


def test_clip_z_is_measured_against_images_that_do_not_offer_the_entity(i2e, kb, nano_dir):
    model, opened = load_model(str(nano_dir), precision="auto"), KnowledgeBase.open(kb)
    stored = np.load(i2e / "background.npz")
    text = model.encode_texts(opened.entity_text([opened.row_of("lime")]))[0]
    others = np.array(["lime" not in names.split("\n") for names in stored["offered"]])
    cosines = stored["images"][others] @ text
    [entity] = _rows(i2e)[2]["entities"]
    expected = (entity["clip"] - cosines.mean()) / cosines.std()
    assert entity["clip_z"] == pytest.approx(expected, rel=1e-2)


def test_the_null_comes_from_another_image_even_in_a_shard_of_one(tmp_path, kb, nano_dir, pairs):
    folder = shutil.copytree(pairs, tmp_path / "in")
    write_tar(folder / "9.tar", {"x.jpg": fruit.photo("lime", 99), "x.txt": b"lime"})
    label(folder, kb=kb, model=str(nano_dir), out=tmp_path / "o", settings=SETTINGS)
    for row in _rows(tmp_path / "o"):
        assert all(entity["clip_z"] != entity["clip_z_other"] for entity in row["entities"])


def test_an_image_is_opened_only_if_its_caption_names_something(tmp_path, kb, nano_dir):
    members = {"a.jpg": fruit.photo("red"), "a.txt": b"apple"}
    members |= {"b.jpg": b"no image", "b.txt": b"my holidays"}
    write_tar(tmp_path / "a.tar", members)
    totals = label(
        tmp_path / "a.tar", kb=kb, model=str(nano_dir), out=tmp_path / "o", settings=SETTINGS
    )
    named, unnamed = _rows(tmp_path / "o")
    assert named["width"] == 24
    assert len(named["sha256"]) == 32
    assert (unnamed["status"], unnamed["width"], unnamed["sha256"]) == ("ok", None, None)
    assert (totals.errors, totals.kept) == ({}, 1)


def test_without_a_model_the_text_alone_is_scored(tmp_path, pairs, kb):
    label(pairs, kb=kb, out=tmp_path / "o", settings=LabelSettings(workers=1))
    rows = _rows(tmp_path / "o")
    assert all(row["width"] == 24 for row in rows)
    for entity in (entity for row in rows for entity in row["entities"]):
        assert entity["score"] == entity["text_score"] > 0
        assert (entity["clip"], entity["clip_z"]) == (None, None)


def test_labelling_without_a_model_imports_no_torch(tmp_path, pairs, kb):
    script = f"""
import sys
from openmofi.cli import app
line = "label {pairs} --kb {kb} --out {tmp_path / "o"} --workers 1"
app(line.split(), result_action="return_value")
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ)


def test_several_workers_leave_this_process_its_threads(tmp_path, pairs, kb, nano_dir):
    before = torch.get_num_threads()
    torch.set_num_threads(cores() + 1)
    try:
        settings = replace(SETTINGS, workers=2)
        label(pairs, kb=kb, model=str(nano_dir), out=tmp_path / "o", settings=settings)
        assert torch.get_num_threads() == cores() + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["mobileclip_s0.pt", "model.safetensors"])
def test_processes_share_the_memory_by_the_size_of_their_model(tmp_path, monkeypatch, name):
    monkeypatch.setattr(encoder, "cores", lambda: 8)
    monkeypatch.setattr(encoder.os, "sysconf", {"SC_AVPHYS_PAGES": 5000, "SC_PAGE_SIZE": 10**6}.get)
    assert default_workers([str(tmp_path)], "cpu") == 4
    with (tmp_path / name).open("wb") as file:
        file.truncate(500_000_000)
    assert default_workers([str(tmp_path)], "cpu") == 2
    assert default_workers([str(tmp_path / name)], "cpu") == 2


def test_embeddings_lie_beside_the_rows(i2e):
    for commit in commits(i2e):
        table = pq.read_table(i2e / commit.extra["embeddings"])
        assert table["key"].to_pylist() == pq.read_table(i2e / commit.file)["key"].to_pylist()
        lengths = [
            np.linalg.norm(np.array(vector, float)) for vector in table["vector"].to_pylist()
        ]
        assert lengths == pytest.approx([1.0] * len(table), abs=1e-2)


@pytest.mark.parametrize("name", fruit.BAD)
def test_a_bad_image_is_refused_with_its_reason_and_alone(tmp_path, kb, nano_dir, name):
    data, reason = fruit.BAD[name]
    members = {"a.jpg": fruit.photo("red"), "a.txt": b"apple", "b.jpg": data, "b.txt": b"apple"}
    write_tar(tmp_path / "a.tar", members)
    totals = label(tmp_path / "a.tar", kb=kb, model=str(nano_dir), out=tmp_path / "o")
    good, bad = _rows(tmp_path / "o")
    assert (totals.rows, totals.errors) == (2, {reason: 1})
    assert (good["status"], len(good["entities"])) == ("ok", 2)
    assert (bad["status"], bad["error"], bad["entities"]) == ("error", reason, [])


@pytest.mark.parametrize("name", fruit.GOOD)
def test_an_unusual_image_is_labelled_like_any_other(tmp_path, kb, nano_dir, name):
    write_tar(tmp_path / "a.tar", {"a.jpg": fruit.GOOD[name], "a.txt": b"apple"})
    label(tmp_path / "a.tar", kb=kb, model=str(nano_dir), out=tmp_path / "o")
    [row] = _rows(tmp_path / "o")
    assert (row["status"], len(row["entities"])) == ("ok", 2)
    assert row["width"] == row["height"] > 0


def test_a_damaged_shard_fails_alone_and_is_read_once_it_is_mended(tmp_path, kb, nano_dir):
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        table = pa.table({"caption": ["apple"], "image": [fruit.photo("red")]})
        pq.write_table(table, tmp_path / f"in/{name}.parquet")
    whole = (tmp_path / "in/b.parquet").read_bytes()
    (tmp_path / "in/b.parquet").write_bytes(whole[:200])
    arguments = {"kb": kb, "model": str(nano_dir), "out": tmp_path / "o", "settings": SETTINGS}
    first = label(tmp_path / "in", **arguments)
    assert (first.done, first.failed, first.rows) == (1, 1, 1)
    assert "not a readable Parquet file" in next(iter(first.reasons))
    (tmp_path / "in/b.parquet").write_bytes(whole)
    second = label(tmp_path / "in", **arguments)
    assert (second.done, second.failed, second.rows) == (2, 0, 2)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A hundred entities with texts of all lengths; each shard names one that the last did not."""
    folder = tmp_path_factory.mktemp("many")
    lines = [f"e{i},thing{i:03d},{'word ' * (i % 12)}" for i in range(100)]
    (folder / "things.csv").write_text("id,name,description\n" + "\n".join(lines))
    build_kb(folder / "things.csv", out=folder / "kb")
    (folder / "in").mkdir()
    for shard in range(4):
        members = {}
        for i in range(12):
            members[f"{i}.jpg"] = fruit.photo("red", i)
            members[f"{i}.txt"] = f"thing{shard + i:03d}".encode()
        write_tar(folder / f"in/{shard}.tar", members)
    return folder


@pytest.mark.parametrize("context", ["words", "model"])
def test_labels_do_not_depend_on_what_was_labelled_before(tmp_path, many, nano_dir, context):
    settings = replace(SETTINGS, context=context)
    for name, ranks in (("one", [0]), ("two", [1, 0])):
        # each with a knowledge base of its own, whose entities nobody has encoded yet
        kb = shutil.copytree(many / "kb", tmp_path / f"kb-{name}")
        shutil.rmtree(kb / "entity_vectors", ignore_errors=True)
        for rank in ranks:
            ranked = replace(settings, engine="rank", rank=rank, world_size=len(ranks))
            arguments = {"kb": kb, "model": str(nano_dir), "settings": ranked}
            label(many / "in", out=tmp_path / name, **arguments)
    assert _digests(tmp_path / "one") == _digests(tmp_path / "two")


def test_two_workers_write_the_same_bytes_as_one(tmp_path, many, nano_dir):
    for workers in (1, 2):
        settings = replace(SETTINGS, workers=workers)
        arguments = {"kb": many / "kb", "model": str(nano_dir), "settings": settings}
        label(many / "in", out=tmp_path / str(workers), **arguments)
    assert _digests(tmp_path / "1") == _digests(tmp_path / "2")


_KILLED = """
    import os, signal, sys
    import openmofi.shards.worker as worker
    from openmofi.cli import main
    commit, count = worker.publish, []
    def killing(*arguments, **more):
        count.append(1)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # its rows are written and nobody vouches for them
        return commit(*arguments, **more)
    worker.publish = killing
    main(sys.argv[1:])
"""


def test_after_kill_9_the_same_command_goes_on_to_the_same_rows(tmp_path, i2e, pairs, kb, nano_dir):
    out = tmp_path / "o"
    line = f"label {pairs} --kb {kb} --model {nano_dir} --out {out} --background 16"
    line += " --batch-size 5 --workers 1 --keep-embeddings"
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), *line.split()]
    assert subprocess.run(command, env=os.environ).returncode == -signal.SIGKILL
    assert [commit.shard for commit in commits(out)] == ["0", "1"]
    totals = label(pairs, kb=kb, model=str(nano_dir), out=out, settings=SETTINGS)
    assert (totals.done, totals.rows) == (4, 36)
    assert _digests(out) == _digests(i2e)
    assert _rows(out) == _rows(i2e)


def test_labels_of_another_knowledge_base_or_model_are_not_mixed_in(
    tmp_path, i2e, pairs, kb, nano_dir
):
    other = shutil.copytree(nano_dir, tmp_path / "model")
    with pytest.raises(MismatchError, match="was begun with model"):
        label(pairs, kb=kb, model=str(other), out=i2e, settings=SETTINGS)
    catalogue = fruit.write_catalogue(tmp_path, fruit.CATALOGUE.replace("small", "tiny"))
    build_kb(catalogue, out=tmp_path / "kb")
    with pytest.raises(MismatchError, match="was begun with kb"):
        label(pairs, kb=tmp_path / "kb", model=str(nano_dir), out=i2e, settings=SETTINGS)


def test_a_model_trained_anew_under_its_old_name_is_another_one(tmp_path, pairs, kb, nano_dir):
    model, out = shutil.copytree(nano_dir, tmp_path / "model"), tmp_path / "o"
    label(pairs, kb=kb, model=str(model), out=out, settings=SETTINGS)
    weights = load_model(str(model))
    weights.network.logit_scale.data += 0.1
    weights.network.save_pretrained(model)
    with pytest.raises(MismatchError, match="model_sha256"):
        label(pairs, kb=kb, model=str(model), out=out, settings=SETTINGS)


def test_where_no_pair_can_be_used_the_reasons_are_told(tmp_path, kb, nano_dir):
    write_tar(tmp_path / "a.tar", {"a.jpg": fruit.photo("red"), "b.jpg": b"", "b.txt": b"apple"})
    with pytest.raises(InputError, match=r"can be used: .*no_caption 1"):
        label(tmp_path / "a.tar", kb=kb, model=str(nano_dir), out=tmp_path / "o")


def test_tables_are_never_written_among_the_images(tmp_path, kb, nano_dir):
    photos = fruit.write_listing(tmp_path / "photos")
    with pytest.raises(InputError, match="lies inside the input"):
        label(photos, kb=kb, model=str(nano_dir), out=photos / "i2e")
    label(photos / "captions.csv", kb=kb, model=str(nano_dir), out=photos / "i2e")
    label(photos / "captions.csv", kb=kb, model=str(nano_dir), out=photos / "i2e")


def test_shards_of_one_name_in_different_folders_are_both_labelled(tmp_path, kb, nano_dir):
    for folder, name in (("a", "b.tar"), ("", "a__b.tar")):
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        members = {"1.jpg": fruit.photo("red"), "1.txt": b"apple"}
        write_tar(tmp_path / "in" / folder / name, members)
    arguments = {"model": str(nano_dir), "out": tmp_path / "o", "settings": SETTINGS}
    totals = label(tmp_path / "in", kb=kb, **arguments)
    assert (totals.shards, totals.done, totals.rows) == (2, 2, 2)
