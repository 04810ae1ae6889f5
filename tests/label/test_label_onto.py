"""`label --onto`: the labels of a full run with the newer knowledge base, for fewer looks."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

import fruit
from conftest import write_tar
from openmofi.cli import app
from openmofi.config import LabelSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label, shard_labeller
from openmofi.label.entity_vectors import EntityVectors, carry_vectors
from openmofi.link import Linker, WordEncoder
from openmofi.model import load_model
from openmofi.shards import commits, committed_files

pytestmark = pytest.mark.slow
SETTINGS = LabelSettings(background=16, batch_size=5, workers=1, keep_embeddings=True)
OLD = """id,name,aliases,description,weight
red,Red Apple,apple|pomme,a round red fruit,3
plum,Plum,,a small purple fruit,2
fig,Fig,,a soft fruit,1
"""
NEW = """id,name,aliases,description,weight
green,Green Apple,apple,a round green fruit,9
plum,Plum,prune,a small purple fruit with a stone,2
"""
WORDS = ["a red apple", "one apple", "plum jam", "a prune", "fig tree", "fig and plum", "my cat"]


def write_world(folder, rng, shards=3, per_shard=11):
    """Writes pairs whose captions name things that one, both or no knowledge base has."""
    for shard in range(shards):
        members = {}
        for i in range(per_shard):
            number = shard * per_shard + i
            data = fruit.photo(fruit.NAMES[number % 3], number)
            members[f"{number:03d}.jpg"] = b"damaged" if number == 5 else data
            members[f"{number:03d}.txt"] = str(rng.choice(WORDS)).encode()
        write_tar(folder / f"{shard}.tar", members)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory, nano_dir):
    """Pairs, two knowledge bases, and the labels by the older one."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "in").mkdir()
    write_world(folder / "in", np.random.default_rng(0))
    build_kb(_written(folder / "old.csv", OLD), out=folder / "kb")
    build_kb(_written(folder / "new.csv", NEW), out=folder / "next", onto=folder / "kb")
    (folder / "model").symlink_to(nano_dir)
    run(folder, "kb", "i2e")
    return folder


def _written(path, text):
    path.write_text(text)
    return path


def run(folder, kb, out, settings=SETTINGS, onto=None, model=True):
    onto = None if onto is None else folder / onto
    named = str(folder / "model") if model else None
    given = {"out": folder / out, "settings": settings, "onto": onto}
    return label(folder / "in", kb=folder / kb, model=named, **given)


def digests(i2e):
    """The sha256 of every table of labels and embeddings."""
    tables = {commit.shard: commit.sha256 for commit in commits(i2e)}
    for commit in commits(i2e):
        for name, file in commit.extra.items():
            tables[commit.shard, name] = pq.read_table(i2e / file).to_pylist()
    return tables


def rows_of(i2e):
    return [row for file in committed_files(i2e) for row in pq.read_table(file).to_pylist()]


def to_look_at(folder, older, newer, i2e):
    """The keys whose image a slow reader of the rule looks at again."""
    kbs = [KnowledgeBase.open(folder / name) for name in (older, newer)]
    rows = [
        row for file in committed_files(folder / i2e) for row in pq.read_table(file).to_pylist()
    ]
    linker, found = Linker(kbs[1], encoder=WordEncoder(kbs[1])), set()
    for row in rows:
        ids = set(linker.link([row["caption"]], all_candidates=True)["id"].to_pylist())
        known = {entity["id"] for entity in row["entities"] if entity["clip"] is not None}
        texts = [{i: kb.entity_text([kb.row_of(i)]) for i in ids & known} for kb in kbs]
        changed = {i for i in ids & known if texts[0][i] != texts[1][i]}
        if ids and (row["sha256"] is None or ids - known or changed):
            found.add(row["key"])
    return found


def test_the_labels_are_those_of_a_full_run(world):
    totals = run(world, "next", "onto", onto="i2e")
    full = run(world, "next", "full")
    assert digests(world / "onto") == digests(world / "full")
    described = [(world / name / "run.json").read_text() for name in ("onto", "full")]
    assert described[0] == described[1]
    background = [np.load(world / name / "background.npz") for name in ("onto", "full")]
    assert all(np.array_equal(background[0][n], background[1][n]) for n in background[0].files)
    assert totals.looked == len(to_look_at(world, "kb", "next", "i2e"))
    assert 0 < totals.looked < full.looked
    assert replace(totals, looked=0) == replace(full, looked=0)


@pytest.mark.parametrize("seed", range(4))
def test_random_catalogues_give_the_labels_of_a_full_run(tmp_path, nano_dir, seed):
    rng = np.random.default_rng(seed)
    names = ["apple", "red apple", "plum", "plum jam", "fig", "fig tree", "prune", "cat"]

    def catalogue(path, ids):
        lines = ["id,name,aliases,description,weight"]
        for i in ids:
            alias = "|".join(rng.choice(names, 2))
            lines.append(f"E{i},{rng.choice(names)},{alias},{rng.choice(['', 'x', 'y'])},{i % 4}")
        return _written(path, "\n".join(lines) + "\n")

    (tmp_path / "in").mkdir()
    write_world(tmp_path / "in", rng)
    (tmp_path / "model").symlink_to(nano_dir)
    build_kb(catalogue(tmp_path / "a.csv", range(8)), out=tmp_path / "kb")
    newer = rng.choice(14, 5, replace=False).tolist()
    build_kb(catalogue(tmp_path / "b.csv", newer), out=tmp_path / "next", onto=tmp_path / "kb")
    settings = replace(SETTINGS, context=str(rng.choice(["words", "model"])))
    run(tmp_path, "kb", "i2e", settings)
    totals = run(tmp_path, "next", "onto", settings, onto="i2e")
    shutil.rmtree(
        tmp_path / "next/entity_vectors"
    )  # what was carried over must be what is computed
    run(tmp_path, "next", "full", settings)
    assert digests(tmp_path / "onto") == digests(tmp_path / "full")
    if settings.context == "words":
        assert totals.looked == len(to_look_at(tmp_path, "kb", "next", "i2e"))


def test_without_an_encoder_only_images_that_were_not_opened_are_read(world, monkeypatch):
    settings = LabelSettings(workers=1)
    run(world, "kb", "t0", settings, model=False)
    read, fetch = [], shard_labeller.fetch
    monkeypatch.setattr(
        shard_labeller, "fetch", lambda reader, row: read.append(row) or fetch(reader, row)
    )
    totals = run(world, "next", "t1", settings, onto="t0", model=False)
    assert len(read) == totals.looked
    run(world, "next", "t2", settings, model=False)
    assert digests(world / "t1") == digests(world / "t2")
    before, after = ({row["key"]: row for row in rows_of(world / out)} for out in ("t0", "t2"))
    new = {key for key, row in after.items() if row["sha256"] and not before[key]["sha256"]}
    damaged = {key for key, row in after.items() if row["error"]}
    assert totals.looked == len(new | damaged)


def test_the_same_knowledge_base_again_looks_at_nothing_but_what_was_damaged(world):
    totals = run(world, "kb", "same", onto="i2e")
    assert digests(world / "same") == digests(world / "i2e")
    assert totals.looked == sum(totals.errors.values()) <= 1


def test_a_shard_that_ended_early_is_looked_at_as_a_whole(world, tmp_path, nano_dir):
    (tmp_path / "model").symlink_to(nano_dir)
    shutil.copytree(world / "in", tmp_path / "in")
    whole = (tmp_path / "in/2.tar").read_bytes()
    (tmp_path / "in/2.tar").write_bytes(whole[: len(whole) // 2])
    for kb in ("kb", "next"):
        shutil.copytree(world / kb, tmp_path / kb)
    run(tmp_path, "kb", "i2e")
    partial = {c.shard: c for c in commits(tmp_path / "i2e")}["2"]
    assert partial.status == "partial"
    run(tmp_path, "next", "onto", onto="i2e")
    run(tmp_path, "next", "full")
    assert digests(tmp_path / "onto") == digests(tmp_path / "full")
    looked = [{c.shard: c.looked for c in commits(tmp_path / out)} for out in ("onto", "full")]
    assert looked[0]["2"] == looked[1]["2"]


def _refused(world, match, error=MismatchError, **more):
    given = {"kb": "next", "out": "never", "onto": "i2e"} | more
    with pytest.raises(error, match=match):
        run(world, **given)
    assert not (world / "never").exists()


def test_another_encoder_or_setting_is_refused(world, tmp_path):
    _refused(world, "model_sha256", model=False, settings=replace(SETTINGS, keep_embeddings=False))
    _refused(world, "settings.background = 16, not 8", settings=replace(SETTINGS, background=8))
    _refused(world, "settings.context = 'words', not 'model'",
             settings=replace(SETTINGS, context="model"))  # fmt: skip
    _refused(world, "is not an output folder", InputError, onto="in")


def test_another_input_is_refused(world, tmp_path, nano_dir):
    (tmp_path / "model").symlink_to(nano_dir)
    for name in ("in", "kb", "next", "i2e"):
        shutil.copytree(world / name, tmp_path / name)
    _refused(tmp_path, "input = ")
    description = json.loads((tmp_path / "i2e/run.json").read_text())
    description |= {"input": os.path.realpath(tmp_path / "in")}
    (tmp_path / "i2e/run.json").write_text(json.dumps(description))
    os.utime(tmp_path / "in/0.tar")
    _refused(tmp_path, "input has changed")


def test_a_knowledge_base_that_grew_in_place_cannot_be_compared(world, tmp_path, nano_dir):
    (tmp_path / "model").symlink_to(nano_dir)
    (tmp_path / "in").mkdir()
    write_world(tmp_path / "in", np.random.default_rng(1), shards=1)
    shutil.copytree(world / "kb", tmp_path / "kb")
    run(tmp_path, "kb", "i2e")
    build_kb(_written(tmp_path / "new.csv", NEW), out=tmp_path / "kb", onto=tmp_path / "kb")
    _refused(tmp_path, "is no longer at", InputError, kb="kb")


def test_vectors_of_unchanged_texts_are_carried_over(world, tmp_path):
    model = load_model(str(world / "model"))
    old, new = (KnowledgeBase.open(world / name) for name in ("kb", "next"))
    first = EntityVectors(old, model, tmp_path / "a.f16").of(np.arange(len(old)))
    carry_vectors((old, tmp_path / "a.f16"), (new, tmp_path / "b.f16"))
    stored = np.fromfile(tmp_path / "b.f16", np.float16).reshape(len(new), -1)
    written = {new.ids[int(r)].as_py() for r in np.flatnonzero(np.abs(stored).sum(1))}
    assert written == {"red", "fig"}  # plum has another text, green is new
    row = new.row_of("red")
    assert np.array_equal(stored[row].astype(np.float32), first[old.row_of("red")])
    carry_vectors((old, tmp_path / "nowhere"), (new, tmp_path / "c.f16"))
    assert not (tmp_path / "c.f16").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_vectors_of_images_do_not_depend_on_the_batch(nano_dir, precision):
    model = load_model(str(nano_dir), precision=precision)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    together = model.encode_pixels_alone(pixels, 5)
    some = [69, 3, 40]
    assert np.array_equal(model.encode_pixels_alone(pixels[some], 256), together[some])
    loose = 1e-5 if precision == "fp32" else 0.05
    np.testing.assert_allclose(together, model.encode_pixels(pixels), atol=loose)
    assert model.encode_pixels_alone(pixels[:0], 5).shape == (0, model.dim)


def test_a_job_survives_kills_and_is_the_same(world, tmp_path):
    command = [sys.executable, "-m", "openmofi", "label", f"{world}/in", "--kb", f"{world}/next"]
    command += ["--model", f"{world}/model", "--onto", f"{world}/i2e", "--out", f"{tmp_path}/o"]
    command += ["--workers", "1", "--background", "16", "--keep-embeddings"]
    rng = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(2, 6))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    run(world, "next", tmp_path / "full")
    assert digests(tmp_path / "o") == digests(tmp_path / "full")


def test_the_verb_says_how_many_images_it_looked_at(world, capsys, tmp_path):
    line = ["label", f"{world}/in", "--kb", f"{world}/next", "--model", f"{world}/model"]
    line += ["--onto", f"{world}/i2e", "--out", f"{tmp_path}/o", "--workers", "1"]
    line += ["--background", "16", "--keep-embeddings"]
    app(line, result_action="return_value")
    assert "looked at" in (said := capsys.readouterr().out)
    assert "% of the pairs)" in said
