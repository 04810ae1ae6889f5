"""The verb `reinforce`: what it prints, what it names next, and that a mistake is one sentence."""

import json
import shlex

import pytest

import openmofi.cli.reinforce  # noqa: F401
from model.tiny_models import write_model
from openmofi.cli import main
from selected import write_selected

RECIPE = """
model: {image_size: 32, vocab_size: 300}
steps: 2
batch_size: 8
threads: 1
"""


def _run(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code


@pytest.fixture
def call(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    teacher, data = write_model(tmp_path / "clip", "clip"), write_selected(tmp_path / "data")
    places = ["--data", str(data), "--recipe", str(tmp_path / "recipe.yaml"), "--device", "cpu"]
    out = ["--out", str(tmp_path / "teacher")]
    return ["reinforce", str(teacher), *places, *out, "--set", "augment.crop=0.5"]


@pytest.mark.slow
def test_what_it_names_next_trains_a_student(call, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _run(*call) == 0
    wrote, then = capsys.readouterr().out.splitlines()
    assert wrote.startswith(f"wrote {tmp_path / 'teacher'} (24 images x 5 augmentations, 30 texts")
    assert _run(*shlex.split(then.removeprefix("next: openmofi "))) == 0
    assert "distillation" in (tmp_path / "run/metrics.jsonl").read_text()


def test_json_is_the_summary(call, capsys):
    assert _run(*call, "--augmentations", "2", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["augmentations"], summary["dim"], summary["unreadable"]) == (2, 8, {})


def test_a_mistake_is_one_sentence(call, capsys):
    assert _run(*call, "--set", "augment.crop=7") == 1
    assert capsys.readouterr().err.startswith("openmofi: Setting 'crop' cannot be 7")
