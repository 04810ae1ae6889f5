"""The verb `adapt`: what it prints, and that a mistake is one sentence."""

import json

import numpy as np
import pytest

import openmofi.cli.adapt  # noqa: F401
from openmofi.cli import main


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 6)
    vectors = 0.4 * random.normal(size=(240, 12))
    vectors[:, :4] += random.normal(size=(40, 4))[labels]
    np.save(tmp_path / "v.npy", vectors.astype(np.float16))
    (tmp_path / "l.csv").write_text("file,label\n" + "".join(f"{i}.jpg,e{i}\n" for i in labels))
    return ["--embeddings", str(tmp_path / "v.npy"), "--labels", str(tmp_path / "l.csv")]


def _run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["adapt", *arguments])
    return stopped.value.code


QUICK = ["--set", "steps=30", "--set", "evaluate_every=15", "--set", "pull=1"]


def test_it_says_what_was_measured_and_written(files, tmp_path, capsys):
    code = _run(*files, "--out", str(tmp_path / "run"), *QUICK)
    assert code == 0
    printed = capsys.readouterr().out
    assert "held-out mAP, unseen: " in printed
    assert f"wrote {tmp_path / 'run'} (240 vectors of 40 entities)" in printed
    assert "The encoder is not known" in printed


def test_json_is_the_summary(files, tmp_path, capsys):
    code = _run(*files, "--out", str(tmp_path / "run"), *QUICK, "--json")
    assert code == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["vectors"] == 240
    assert set(summary["before"]) == {"known", "unseen", "mean"}


def test_embeddings_can_be_written(files, tmp_path):
    code = _run(*files, "--out", str(tmp_path / "run"), *QUICK, "--write-embeddings")
    assert code == 0
    assert np.load(tmp_path / "run" / "embeddings.npy").shape == (240, 12)


def test_a_mistake_is_one_sentence(tmp_path, capsys):
    code = _run("--embeddings", str(tmp_path / "no"), "--out", str(tmp_path / "run"))
    assert code == 1
    assert capsys.readouterr().err.startswith("openmofi: There is no file")
