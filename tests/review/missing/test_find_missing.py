"""From labels to proposals: what is missing is found, with its images, and nothing else is."""

import json
import random
import subprocess
import sys
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.config import MissingSettings
from openmofi.errors import InputError, SettingsError
from openmofi.review.missing import find_missing, missing_folder
from openmofi.review.missing.proposals import read_proposals
from unknown_fruit import write_unknown

ONE = MissingSettings(workers=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_unknown(tmp_path_factory.mktemp("unknown"), photos=True)


def test_what_the_catalogue_lacks_is_proposed_with_its_images(world, tmp_path):
    summary = find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "m")
    found = {one.name: one for one in read_proposals(summary.out)}
    assert set(found) == {"kiwi", "fig"}
    members = pq.read_table(summary.out / "members.parquet").to_pylist()
    for one in found.values():
        keys = [row["key"] for row in members if row["proposal"] == one.id]
        assert len(keys) == one.looked >= 20
        assert {world.shown[key] for key in keys} == {one.name}
        assert [example.key for example in one.examples] == keys[:24]
        assert one.id == f"new:{one.name}"
        assert one.nearest[0].id == "plum"
        assert one.nearest[0].apart > 0.9


def test_the_table_says_the_same(world, tmp_path):
    out = find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "m").out
    rows = pq.read_table(out / "proposals.parquet").to_pylist()
    assert rows == json.loads((out / "proposals.json").read_text())


def test_vectors_may_come_in_any_order_and_lack_some(world, tmp_path):
    table = pq.read_table(world.vectors)
    first = find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "a")
    pq.write_table(table.take(pa.array(range(len(table))[::-1])), tmp_path / "b.parquet")
    second = find_missing(world.i2e, embeddings=tmp_path / "b.parquet", out=tmp_path / "b")
    assert (first.out / "proposals.json").read_text() == (second.out / "proposals.json").read_text()
    pq.write_table(table.slice(0, 60), tmp_path / "c.parquet")
    third = find_missing(world.i2e, embeddings=tmp_path / "c.parquet", out=tmp_path / "c")
    assert third.dropped["no_vector"] > 0


def test_a_copied_image_counts_once(world, tmp_path):
    table = pq.read_table(world.vectors).to_pylist()
    same = next(row["vector"] for row in table if world.shown[row["id"]] == "fig")
    for row in table:
        row["vector"] = same if world.shown[row["id"]] == "fig" else row["vector"]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "v.parquet")
    out = find_missing(world.i2e, embeddings=tmp_path / "v.parquet", out=tmp_path / "m").out
    assert [one.name for one in read_proposals(out)] == ["kiwi"]


def test_other_images_vectors_are_refused(world, tmp_path):
    pq.write_table(pa.table({"id": ["x"], "vector": [[1.0, 2.0]]}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match="no vector of an image"):
        find_missing(world.i2e, embeddings=tmp_path / "v.parquet", out=tmp_path / "m")


@pytest.mark.parametrize("given", [{}, {"model": "m", "embeddings": "e.parquet"}])
def test_something_has_to_see_the_images(world, given):
    with pytest.raises(SettingsError, match="either --model or --embeddings"):
        find_missing(world.i2e, **given)


def test_another_folder_is_not_written_into(world, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(InputError, match="is not an output of"):
        find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "mine")


def test_damaged_proposals_are_one_sentence(world, tmp_path):
    out = find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "m").out
    (out / "proposals.json").write_text('[{"id": 3')
    with pytest.raises(InputError, match="is damaged"):
        read_proposals(out)
    find_missing(world.i2e, embeddings=world.vectors, out=out)
    assert len(read_proposals(out)) == 2


@pytest.mark.slow
def test_after_kills_the_proposals_are_those_of_an_undisturbed_run(world, nano_dir, tmp_path):
    whole = find_missing(world.i2e, model=nano_dir, out=tmp_path / "whole", settings=ONE)
    line = [sys.executable, "-m", "openmofi", "review", "missing", world.i2e, "--model", nano_dir]
    out, rng = tmp_path / "m", random.Random(0)
    for begun in ("images", "vectors/plan.parquet", "vectors/_done"):
        process = subprocess.Popen([*line, "--out", out], stdout=subprocess.DEVNULL)
        while process.poll() is None and not (out / begun).exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
    again = find_missing(world.i2e, model=nano_dir, out=out, settings=ONE)
    for name in ("proposals.json", "members.parquet"):
        assert (whole.out / name).read_bytes() == (again.out / name).read_bytes()


@pytest.mark.slow
def test_by_default_proposals_lie_beside_the_labels_and_vectors_are_kept(world, nano_dir):
    first = find_missing(world.i2e, model=nano_dir, settings=ONE)
    assert first.out == missing_folder(world.i2e, "default")
    made = {path: path.stat().st_mtime_ns for path in (first.out / "vectors").rglob("*.parquet")}
    find_missing(world.i2e, model=nano_dir, settings=ONE)
    assert made == {p: p.stat().st_mtime_ns for p in (first.out / "vectors").rglob("*.parquet")}
