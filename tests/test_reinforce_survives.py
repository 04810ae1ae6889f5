"""`openmofi reinforce` itself: killed, short of disk and images; then the vectors are the same."""

import json
import random
import sys

import pyarrow.parquet as pq
import pytest

from killing import kill_at_random, records, run_on_a_full_disk
from openmofi.cli import main
from openmofi.errors import InputError
from openmofi.shards import commits
from openmofi.train import shard_reinforcer
from openmofi.train.teacher import Teacher
from selected import write_selected

pytestmark = pytest.mark.slow
RECIPE = "evaluation: {holdout: 0.2}\n"
EACH = 10
# As the command, with smaller shards
_SMALL = f"""
import sys
from openmofi.train import shard_reinforcer
shard_reinforcer._LEAST = {EACH}
from openmofi.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def places(tmp_path, monkeypatch, nano_dir):
    """The arguments of `reinforce` but for --out; 48 shards of images, one of entities."""
    monkeypatch.setattr(shard_reinforcer, "_LEAST", EACH)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    data = write_selected(tmp_path / "data", images=600)
    return [nano_dir, "--data", data, "--recipe", tmp_path / "recipe.yaml", "--device", "cpu"]


def _run(capsys, *arguments, verb="reinforce"):
    capsys.readouterr()
    try:
        main([verb, *map(str, arguments)])
        code = 0
    except SystemExit as error:
        code = error.code or 0
    return code, *capsys.readouterr()


def _digests(out):
    return {commit.shard: commit.sha256 for commit in commits(out)}


@pytest.mark.parametrize("source", ["selection", "pairs", "repeats"])
def test_after_kills_at_random_the_vectors_are_those_of_an_undisturbed_run(
    tmp_path, places, capsys, source
):
    if source == "pairs":
        places[2] = tmp_path / "data/a.tar"
        text = RECIPE + "loss: {supervised: 0, text: [caption]}\n"
        (tmp_path / "recipe.yaml").write_text(text)
    if source == "repeats":
        (tmp_path / "recipe.yaml").write_text(RECIPE + "augment: {when: repeats}\n")
    assert _run(capsys, *places, "--out", tmp_path / "whole")[0] == 0
    out, rng = tmp_path / "killed", random.Random(0)
    for workers in (2, 1, 2):
        before = {record: record.read_bytes() for record in records(out)}
        line = [sys.executable, "-c", _SMALL, "reinforce", *places, "--out", out]
        kill_at_random([*line, "--workers", str(workers)], out, rng)
        assert all(record.read_bytes() == said for record, said in before.items())
    assert _run(capsys, *places, "--out", out)[0] == 0
    assert _digests(out) == _digests(tmp_path / "whole")
    images = [c.rows for c in commits(out) if c.shard.startswith("images")]
    assert (len(images), sum(images)) == (48, 480)


def test_a_full_disk_ends_the_job_and_the_same_command_goes_on(
    tmp_path, places, capsys, monkeypatch
):
    monkeypatch.undo()  # as the command cuts shards in its own process
    arguments = ["reinforce", *places, "--out", tmp_path / "t"]
    done = run_on_a_full_disk(arguments, most=9000)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "repeat the command, which continues the job" in done.stderr
    with pytest.raises(InputError, match="not a finished output"):
        Teacher(tmp_path / "t")
    code, said, _ = _run(capsys, *arguments[1:], "--json")
    assert (code, json.loads(said)["shards"]["done"]) == (0, 2)


def test_images_that_are_gone_end_shards_early_until_they_are_back(tmp_path, places, capsys):
    tar = tmp_path / "data/a.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    code, said, _ = _run(capsys, *places, "--out", tmp_path / "t")
    assert (code, "ended early: 10 images are missing" in said) == (3, True)
    status = json.loads(_run(capsys, tmp_path / "t", "--json", verb="status")[1])
    assert status["totals"]["errors"].keys() == {"image_missing"}
    assert Teacher(tmp_path / "t").augmentations == 5
    tar.write_bytes(whole)
    assert _run(capsys, *places, "--out", tmp_path / "t", "--retry", "failed,partial")[0] == 0
    assert _run(capsys, *places, "--out", tmp_path / "whole")[0] == 0
    assert _digests(tmp_path / "t") == _digests(tmp_path / "whole")


def test_changed_data_are_one_sentence(tmp_path, places, capsys):
    assert _run(capsys, *places, "--out", tmp_path / "t")[0] == 0
    keep = tmp_path / "data/select/keep.parquet"
    pq.write_table(pq.read_table(keep).slice(1), keep)
    code, _, err = _run(capsys, *places, "--out", tmp_path / "t")
    assert (code, err.count("\n")) == (1, 1)
    assert "was begun with data = " in err


def test_too_many_refused_images_end_the_command(tmp_path, places, capsys):
    tar = tmp_path / "data/a.tar"
    tar.write_bytes(tar.read_bytes().replace(b"JFIF", b"....").replace(b"\xff\xd8", b"xx"))
    code, _, err = _run(capsys, *places, "--out", tmp_path / "t", "--fail-if-error-rate", "0.5")
    assert code == 1
    assert "more than --fail-if-error-rate 0.5 allows" in err


def test_a_teacher_that_reads_no_texts_is_refused_at_once(tmp_path, places, capsys):
    from transformers import ViTConfig, ViTModel

    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(**small, intermediate_size=24, image_size=32, patch_size=16)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    sizes = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(sizes))
    places[0] = tmp_path / "vit"
    code, _, err = _run(capsys, *places, "--out", tmp_path / "t")
    assert (code, "does not encode both images and texts" in err, err.count("\n")) == (1, True, 1)
