"""`openmofi embed` itself: killed, fed damage, starved of disk; then the vectors are the same."""

import json
import random
import re
import sys
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from killing import kill_at_random, records, run_on_a_full_disk
from openmofi.cli import main
from openmofi.config import EmbedSettings
from openmofi.embed import embed
from openmofi.embeddings import read_embeddings
from openmofi.shards import commits, committed_files
from selected import write_selected

pytestmark = pytest.mark.slow
NUM_SHARDS, PER_SHARD = 60, 20
EMBED = [sys.executable, "-m", "openmofi", "embed"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return fruit.write_pairs(folder, shards=NUM_SHARDS, per_shard=PER_SHARD)


@pytest.mark.parametrize(("name", "runs"), [("e", (2, 1)), ("e.parquet", (1,))])
def test_after_kills_at_random_the_vectors_are_those_of_an_undisturbed_run(
    tmp_path, nano_dir, many, name, runs
):
    whole, out, rng = tmp_path / "whole" / name, tmp_path / name, random.Random(0)
    job = out if name == "e" else tmp_path / "e.parquet.shards"
    embed(nano_dir, many, out=whole, settings=EmbedSettings(workers=1))
    for workers in runs:
        before = {record: record.read_bytes() for record in records(job)}
        kill_at_random([*EMBED, nano_dir, many, "--out", out, "--workers", f"{workers}"], job, rng)
        assert all(record.read_bytes() == said for record, said in before.items())
    embed(nano_dir, many, out=out, settings=EmbedSettings(workers=1))
    if name == "e":
        digests = [[c.sha256 for c in commits(folder)] for folder in (whole, out)]
        assert digests[0] == digests[1]
    else:
        assert (out.read_bytes(), job.exists()) == (whole.read_bytes(), False)
    assert len(read_embeddings(out).rows) == NUM_SHARDS * PER_SHARD


@pytest.fixture
def run(nano_dir, tmp_path, capsys):
    """Runs the verb in process on in/: (exit code, stdout, stderr)."""

    def run(*flags: str, out: str = "e", verb: str = "embed"):
        line = ["embed", f"{nano_dir}", f"{tmp_path}/in", "--out", f"{tmp_path}/{out}"]
        line = line if verb == "embed" else [verb, f"{tmp_path}/{out}"]
        capsys.readouterr()
        try:
            main([*line, *flags])
            code = 0
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(("out", "job"), [("e", "e"), ("e.parquet", "e.parquet.shards")])
def test_a_shard_that_ends_early_is_embedded_so_far_until_it_is_mended(run, tmp_path, out, job):
    path = fruit.write_pairs(tmp_path / "in", shards=2) / "1.tar"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    code, said, _ = run(out=out)
    assert (code, "shard 1 ended early: truncated_tar" in said) == (3, True)
    assert 12 < len(read_embeddings(tmp_path / out).rows) < 24
    assert "images" in run(verb="status", out=job)[1]
    path.write_bytes(data)
    code, said, _ = run("--retry", "failed,partial", "--json", out=out)
    assert (code, json.loads(said)["rows"]) == (0, 24)
    assert len(read_embeddings(tmp_path / out).rows) == 24


def test_a_shard_that_cannot_be_read_fails_alone_and_is_tried_again(run, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for name in ("0", "1"):
        images = [fruit.photo("red", number) for number in range(3)]
        table = pa.table({"image": images, "caption": ["apple"] * 3})
        pq.write_table(table, source / f"{name}.parquet")
    good = (source / "1.parquet").read_bytes()
    (source / "1.parquet").write_bytes(b"garbage")
    code, _, err = run()
    assert code == 1
    assert err.splitlines()[-1].startswith("openmofi: 1 of 2 shards failed; fix the cause and")
    assert len(read_embeddings(tmp_path / "e").rows) == 3
    (source / "1.parquet").write_bytes(good)
    code, said, _ = run("--json")
    assert (code, json.loads(said)["rows"]) == (0, 6)


@pytest.mark.parametrize("out", ["e", "e.parquet"])
def test_a_full_disk_ends_the_job_and_the_same_command_goes_on(run, tmp_path, nano_dir, out):
    fruit.write_pairs(tmp_path / "in")
    line = ["embed", nano_dir, tmp_path / "in", "--out", tmp_path / out]
    done = run_on_a_full_disk(line, most=8000)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "repeat the command, which continues the job" in done.stderr
    code, said, _ = run("--json", out=out)
    assert (code, json.loads(said)["rows"]) == (0, 24)


def test_other_verbs_read_the_folder(run, tmp_path, nano_dir, capsys):
    source = tmp_path / "in"
    for name in fruit.NAMES:
        (source / name).mkdir(parents=True)
        for number in range(4):
            (source / name / f"{number}.jpg").write_bytes(fruit.photo(name, number))
    run()
    labels = "\n".join(f"{n}/{i}.jpg,{n}" for n in fruit.NAMES for i in range(4))
    (tmp_path / "labels.csv").write_text(f"file,label\n{labels}\n")
    vectors = f"{tmp_path}/e"
    adapt = ["--labels", f"{tmp_path}/labels.csv", "--out", f"{tmp_path}/run"]
    for line in (
        ["index", vectors, "--out", f"{tmp_path}/index"],
        ["evaluate", "--embeddings", vectors, "--data", f"a={source}"],
        ["adapt", "--embeddings", vectors, *adapt],
    ):
        with suppress(SystemExit):
            main(line)
    said = capsys.readouterr().out
    assert "(12 vectors, flat)" in said
    assert re.search(r"images +12", said)
    assert "12 vectors of 3 entities" in said
    assert [len(pq.read_table(file)) for file in committed_files(tmp_path / "e")] == [12]


def test_images_of_a_selection_that_are_gone_end_its_shard_early(run, tmp_path):
    write_selected(tmp_path / "data")
    (tmp_path / "data/select").rename(tmp_path / "in")
    tar = tmp_path / "data/a.tar"
    tar.rename(tar.with_suffix(".away"))
    code, _, err = run(out="gone")
    assert (code, "can be read: image_missing 24" in err) == (1, True)
    tar.write_bytes(tar.with_suffix(".away").read_bytes()[:20000])
    code, said, _ = run()
    assert (code, "images are missing" in said) == (3, True)
    tar.with_suffix(".away").replace(tar)
    code, said, _ = run("--retry", "failed,partial", "--json")
    assert (code, json.loads(said)["rows"]) == (0, 24)
