import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml

from conftest import jpeg, write_tar
from openmofi import progress
from openmofi.config import TrainSettings, override
from openmofi.errors import InputError, MismatchError, OpenMOFIError, SettingsError
from openmofi.model import load_model
from openmofi.train import train
from openmofi.train.recipe import read_recipe

pytestmark = pytest.mark.slow

TINY = {
    "loss": {"supervised": 0, "text": ["caption"], "mask_same_entity": False},
    "model": {"image_size": 32, "vocab_size": 300},
    "steps": 4,
    "batch_size": 8,
    "log_every": 1,
    "checkpoint_every": 2,
    "threads": 1,
}
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@pytest.fixture
def pairs(tmp_path):
    members = {}
    for i in range(24):
        name, colour = list(COLOURS.items())[i % 3]
        members[f"{i:02d}.jpg"] = jpeg(tuple(c + i for c in colour))
        members[f"{i:02d}.txt"] = f"a {name} thing number {i}".encode()
    return write_tar(tmp_path / "a.tar", members)


def _settings(**changes):
    return override(override(TrainSettings(), TINY), changes)


def _weights(run):
    return load_model(str(run / "model")).network.state_dict()


def _latest(run):
    return (run / "checkpoints/latest").read_text().strip()


def _losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [(m["step"], m["loss"]) for m in map(json.loads, lines)]


def test_a_resumed_run_equals_an_undisturbed_one(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "whole")
    train(_settings(), data=pairs, out=tmp_path / "cut")
    for name in ("model/model.safetensors", "metrics.jsonl"):
        (tmp_path / "cut" / name).unlink()
    (tmp_path / "cut/checkpoints/latest").write_text("step-2\n")
    summary = train(_settings(), data=pairs, out=tmp_path / "cut", resume=True)
    whole, cut = _weights(tmp_path / "whole"), _weights(tmp_path / "cut")
    assert summary.steps == 4
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert _losses(tmp_path / "cut") == _losses(tmp_path / "whole")[2:]


def test_a_line_of_the_log_is_the_mean_of_its_steps(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "each")
    train(_settings(log_every=2), data=pairs, out=tmp_path / "two")
    each = [loss for _, loss in _losses(tmp_path / "each")]
    means = [(2, (each[0] + each[1]) / 2), (4, (each[2] + each[3]) / 2)]
    assert _losses(tmp_path / "two") == [
        (step, pytest.approx(loss, abs=2e-5)) for step, loss in means
    ]
    assert each[0] != pytest.approx(each[1], abs=1e-3)


def test_before_the_first_logged_loss_no_loss_is_shown(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    train(_settings(log_every=3), data=pairs, out=tmp_path / "run")
    lines = [line for line in capsys.readouterr().err.splitlines() if "steps" in line]
    assert ["loss" in line for line in lines if "0/4" not in line] == [False, False, True, True]
    assert "nan" not in "".join(lines)


def test_resuming_a_finished_run_changes_nothing(pairs, tmp_path):
    first = train(_settings(), data=pairs, out=tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run/model").iterdir()}
    again = train(_settings(), data=pairs, out=tmp_path / "run", resume=True)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run/model").iterdir()} == before
    assert again.loss == pytest.approx(first.loss, abs=1e-4)


def test_the_same_seed_gives_the_same_model(pairs, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(_settings(seed=seed), data=pairs, out=tmp_path / name)
    a, b, c = (_losses(tmp_path / name) for name in "abc")
    assert a == b != c


@pytest.mark.parametrize("seed", [2**29, -1, 2**64, 10**30])
def test_any_integer_is_a_seed(pairs, tmp_path, seed):
    summary = train(_settings(seed=seed, steps=1), data=pairs, out=tmp_path / "run")
    assert np.isfinite(summary.loss)


def test_a_run_of_other_random_numbers_is_not_resumed(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "run")
    card = tmp_path / "run/checkpoints/step-4/run.json"
    old = {name: value for name, value in json.loads(card.read_text()).items() if name != "draws"}
    card.write_text(json.dumps(old))
    assert train(_settings(), data=pairs, out=tmp_path / "run", resume=True).steps == 4
    with pytest.raises(MismatchError, match="other random numbers"):
        train(_settings(steps=6), data=pairs, out=tmp_path / "run", resume=True)


def test_learning_lowers_the_loss(pairs, tmp_path):
    settings = _settings(steps=40, batch_size=12)
    train(settings, data=pairs, out=tmp_path / "run")
    losses = [loss for _, loss in _losses(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_other_data_under_the_same_path_is_not_resumed(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "run")
    write_tar(
        pairs,
        {"1.jpg": jpeg(), "1.txt": b"other"}
        | {f"{i}.jpg": jpeg() for i in range(9)}
        | {f"{i}.txt": b"words" for i in range(9)},
    )
    with pytest.raises(MismatchError, match="data changed"):
        train(_settings(steps=6), data=pairs, out=tmp_path / "run", resume=True)


def test_what_does_not_change_the_result_may_change_on_resuming(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "run")
    more = _settings(steps=5, threads=2, log_every=3, device="cpu")
    assert train(more, data=pairs, out=tmp_path / "run", resume=True).steps == 5


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_saves_and_the_same_command_goes_on(pairs, tmp_path, number, workers):
    recipe, run = tmp_path / "recipe.yaml", tmp_path / "run"
    long = {"steps": 5000, "checkpoint_every": 5000, "workers": workers}
    recipe.write_text(yaml.safe_dump({**TINY, **long}))
    command = [sys.executable, "-m", "openmofi", "train", recipe, "--data", pairs, "--out", run]
    pipes = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, env=os.environ, **pipes)
    while not (run / "metrics.jsonl").is_file() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, number)  # as a terminal or Slurm does: with all that it started
    assert "with --resume to continue" in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    step = json.loads((run / "checkpoints" / _latest(run) / "run.json").read_text())["step"]
    assert 1 <= step < 5000
    changes = {"steps": step + 1}
    assert train(recipe, data=pairs, out=run, resume=True, changes=changes).steps == step + 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 100}, InputError, "24 images, fewer than a batch"),
        ({"loss": {"supervised": 1}}, InputError, "the data is raw pairs"),
        ({"loss": {"contrastive": 0}}, SettingsError, "both 0"),
        ({"loss": {"text": ["name"]}}, SettingsError, "Raw pairs have no entities"),
        ({"model": {"image_size": -5}}, SettingsError, "'image_size' cannot be -5"),
        ({"optim": {"beta2": 1.5}}, SettingsError, "'beta2' cannot be 1.5"),
        ({"optim": {"learning_rate": -1}}, SettingsError, "'learning_rate' cannot be -1"),
        ({"epochs": float("inf")}, SettingsError, "'epochs' cannot be inf"),
        ({"ema": 1.0}, SettingsError, "'ema' cannot be 1.0"),
        ({"loss": {"text": ["colour"]}}, SettingsError, "name, description and synthetic"),
        ({"optim": {"learning_rate": 1e30}}, OpenMOFIError, "lower optim.learning_rate"),
    ],
)
def test_an_impossible_run_is_one_sentence(pairs, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(_settings(**changes), data=pairs, out=tmp_path / "run")


@pytest.mark.parametrize(("now", "fits"), [({}, True), ({"augment": {"rand_ops": 2}}, False)])
def test_a_run_begun_before_a_setting_existed_goes_on_with_its_default(pairs, tmp_path, now, fits):
    train(_settings(), data=pairs, out=tmp_path / "run")
    file = tmp_path / "run/config.yaml"
    held = yaml.safe_load(file.read_text())
    del held["augment"]["rand_ops"], held["loss"]["synthetic"]
    file.write_text(yaml.safe_dump(held))
    with contextlib.nullcontext() if fits else pytest.raises(MismatchError, match="rand_ops"):
        train(_settings(**now), data=pairs, out=tmp_path / "run", resume=True)


def test_a_run_is_never_overwritten_or_mixed(pairs, tmp_path):
    train(_settings(), data=pairs, out=tmp_path / "run")
    with pytest.raises(MismatchError, match="add --resume"):
        train(_settings(), data=pairs, out=tmp_path / "run")
    with pytest.raises(MismatchError, match=r"other settings .batch_size"):
        train(_settings(batch_size=4), data=pairs, out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("stepz: 3", SettingsError, "did you mean steps"),
        ("a: [", InputError, "is not YAML"),
        ("- 3", InputError, "must list settings"),
        ("", None, ""),
    ],
)
def test_recipes_are_checked_when_read(tmp_path, text, error, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    if error is None:
        assert read_recipe(path) == TrainSettings()
    else:
        with pytest.raises(error, match=message):
            read_recipe(path)
    with pytest.raises(InputError, match="There is no recipe"):
        read_recipe(tmp_path / "nowhere.yaml")
