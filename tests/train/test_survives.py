"""Kills, full disks and damage: nothing is lost but the steps since the last checkpoint."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from openmofi.config import as_dict
from openmofi.errors import InputError, MismatchError, OpenMOFIError, SettingsError
from openmofi.files.folders import alone_in
from openmofi.model import load_model
from openmofi.model.class_rows import load_head_rows
from openmofi.train import train
from openmofi.train.checkpoints import Checkpoints
from openmofi.train.distributed import World
from selected import losses, tiny, write_selected

ALONE = World(0, 1, torch.device("cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
]


@pytest.fixture
def data(tmp_path):
    return write_selected(tmp_path, second=2)


def _command(data, out, settings):
    recipe = out.parent / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(as_dict(settings)))
    resume = ["--resume"] if (out / "config.yaml").is_file() else []
    module = [sys.executable, "-m", "openmofi", "train", str(recipe)]
    return [*module, "--data", str(data), "--out", str(out), *resume]


def _kill_at(command, metrics, lines):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if metrics.is_file() and len(metrics.read_text().splitlines()) >= lines:
            time.sleep(random.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    return process.returncode


def _assert_same_bits(one, other):
    mine, theirs = (load_model(run / "model").network.state_dict() for run in (one, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    rows = [load_head_rows(run / "model/entity_head")[0] for run in (one, other)]
    assert torch.equal(*rows)
    assert losses(one) == losses(other)


def test_kills_at_random_steps_leave_no_trace(data, tmp_path):
    settings = {"steps": 60, "checkpoint_every": 4, "ema": 0.9, "keep_checkpoints": 2}
    train(tiny(**settings), data=data, out=tmp_path / "whole")
    killed = tmp_path / "killed"
    codes = []
    for number, workers in enumerate((0, 2, 1)):
        command = _command(data, killed, tiny(**settings, workers=workers))
        codes.append(_kill_at(command, killed / "metrics.jsonl", 6 + 16 * number))
    assert codes.count(-signal.SIGKILL) >= 2
    final = tiny(**settings, workers=1, threads=2)
    assert train(final, data=data, out=killed, resume=True).finished
    _assert_same_bits(tmp_path / "whole", killed)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(data, tmp_path):
    train(tiny(steps=4), data=data, out=tmp_path / "run")
    checkpoints = tmp_path / "run/checkpoints"
    shutil.copytree(checkpoints / "step-4", checkpoints / ".step-6.tmp")
    (checkpoints / ".step-6.tmp/.metadata").unlink()
    summary = train(tiny(steps=5), data=data, out=tmp_path / "run", resume=True)
    assert summary.steps == 5
    assert not list(checkpoints.glob(".step-*"))


def _damage_tensors(checkpoint):
    for part in checkpoint.glob("*.distcp"):
        part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


@pytest.mark.parametrize(
    "damage",
    [
        shutil.rmtree,
        _damage_tensors,
        lambda c: (c / ".metadata").write_bytes(b"half"),
        lambda c: (c / ".metadata").unlink(),
        lambda c: (c / "run.json").write_text("{"),
    ],
    ids=["gone", "cut", "metadata cut", "metadata gone", "card cut"],
)
def test_a_damaged_checkpoint_is_one_sentence_and_the_one_before_loads(data, tmp_path, damage):
    run = tmp_path / "run"
    train(tiny(), data=data, out=run)
    shutil.copytree(run, tmp_path / "whole")
    shutil.rmtree(run / "model")
    damage(run / "checkpoints/step-6")
    with pytest.raises(InputError, match="is missing or damaged; put step-4 into"):
        train(tiny(), data=data, out=run, resume=True)
    (run / "checkpoints/latest").write_text("step-4\n")
    train(tiny(), data=data, out=run, resume=True)
    _assert_same_bits(tmp_path / "whole", run)


class _SmallDisk:
    """Files of this process end at so many bytes, as on a full disk."""

    def __init__(self, most):
        self.most = most

    def __enter__(self):
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most, self.before[1]))

    def __exit__(self, *exception):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.handler)


def test_a_full_disk_is_said_and_the_last_good_checkpoint_still_loads(data, tmp_path, capfd):
    run = tmp_path / "run"
    train(tiny(), data=data, out=tmp_path / "whole")
    train(tiny(steps=2), data=data, out=run)
    shutil.rmtree(run / "model")
    with (
        _SmallDisk(100_000),
        pytest.raises(OpenMOFIError, match=r"step 6 could not be written .* the last good one is"),
    ):
        train(tiny(), data=data, out=run, resume=True)
    said = capfd.readouterr().err
    assert said.count("warning: The checkpoint of step 4 could not be written") == 1
    assert (run / "checkpoints/latest").read_text() == "step-2\n"
    assert not list((run / "checkpoints").glob(".step-*"))
    assert train(tiny(), data=data, out=run, resume=True).finished
    # The first part was planned for 2 steps, so its step sizes were others.
    assert list(losses(run)) == list(losses(tmp_path / "whole"))


def test_checkpoints_are_whole_or_not_there_and_old_ones_go(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", ALONE, keep=2)
    state = {"weights": torch.arange(6.0)}
    for step in (1, 2, 3):
        checkpoints.save(step, state, {"data": "x"})
        state["weights"].add_(1)  # what is being written is a copy
    checkpoints.finish()
    assert sorted(p.name for p in (tmp_path / "c").glob("step-*")) == ["step-2", "step-3"]
    path, card = checkpoints.latest()
    assert card == {"step": 3, "data": "x"}
    checkpoints.load(path, state)
    assert torch.equal(state["weights"], torch.arange(6.0) + 2)


def test_a_checkpoint_is_there_before_the_next_one(data, tmp_path, monkeypatch):
    latest, found = tmp_path / "run/checkpoints/latest", []
    poll = Checkpoints.poll

    def wait(self):
        if self._writing is not None:
            self._writing[1].result()
        poll(self)
        found.append(latest.read_text().strip() if latest.is_file() else "")

    monkeypatch.setattr(Checkpoints, "poll", wait)
    train(tiny(steps=3), data=data, out=tmp_path / "run")
    assert found == ["", "step-2", "step-3"]


def test_what_lies_beyond_the_step_that_was_resumed_goes(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", ALONE, keep=9)
    for step in (2, 4, 6, 3):
        checkpoints.save(step, {"x": torch.zeros(1)}, {"data": "x"})
        checkpoints.finish()
        assert (tmp_path / "c/latest").read_text() == f"step-{step}\n"
    assert sorted(p.name for p in (tmp_path / "c").glob("step-*")) == ["step-2", "step-3"]


def test_another_step_size_takes_effect_when_a_run_goes_on(data, tmp_path):
    train(tiny(steps=2), data=data, out=tmp_path / "run")
    settings = tiny(optim={"learning_rate": 1e-6})
    train(settings, data=data, out=tmp_path / "run", resume=True)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(line["learning_rate"] <= 1e-5 for line in lines if line["step"] > 2)


def test_a_run_that_died_before_its_model_was_written_says_what_it_measured(data, tmp_path):
    run, settings = tmp_path / "run", tiny(evaluation={"holdout": 0.3})
    first = train(settings, data=data, out=run)
    card = (run / "model/README.md").read_text()
    shutil.rmtree(run / "model")
    again = train(settings, data=data, out=run, resume=True)
    assert again.loss == pytest.approx(first.loss, abs=1e-5)
    assert again.scores == pytest.approx(first.scores, abs=1e-5)
    assert "heldout_knn" in card
    assert (run / "model/README.md").read_text().splitlines()[:12] == card.splitlines()[:12]


def test_a_second_run_in_the_same_place_is_refused(data, tmp_path):
    with (
        alone_in(tmp_path / "run"),
        pytest.raises(InputError, match="Another run is writing"),
    ):
        train(tiny(), data=data, out=tmp_path / "run")


def test_a_start_that_failed_leaves_no_run(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match="wandb"):
        train(tiny(loggers=["wandb"]), data=data, out=tmp_path / "run")
    (tmp_path / "a.tar").rename(tmp_path / "away.tar")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"^Hardly any image .* still there.$"):
            train(tiny(workers=workers), data=data, out=tmp_path / "run")
    (tmp_path / "away.tar").rename(tmp_path / "a.tar")
    assert train(tiny(), data=data, out=tmp_path / "run").finished


def test_an_image_that_breaks_in_mid_epoch_is_replaced_and_counted(data, tmp_path):
    train(tiny(steps=2), data=data, out=tmp_path / "run")
    tar = tmp_path / "a.tar"
    tar.write_bytes(tar.read_bytes().replace(b"\xff\xd8\xff\xe0", b"none", 20))
    summary = train(tiny(), data=data, out=tmp_path / "run", resume=True)
    assert summary.finished
    assert summary.unreadable > 10


def test_another_vocabulary_is_refused_and_nothing_is_touched(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(), data=data, out=run)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    other = write_selected(tmp_path / "other", images=30)
    with pytest.raises(MismatchError, match="data changed since this run's last checkpoint"):
        train(tiny(steps=9), data=other, out=run, resume=True)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == before


def test_torchrun_trains_with_two_processes_and_sigterm_saves(data, tmp_path):
    run = tmp_path / "run"
    settings = tiny(steps=3000, checkpoint_every=3000)
    command = _command(data, run, settings)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [command[0], *torchrun, *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (run / "metrics.jsonl").is_file() and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert out.count("with --resume to continue") == 1, err
    step = json.loads(next((run / "checkpoints").glob("step-*/run.json")).read_text())["step"]
    assert train(tiny(steps=step + 1), data=data, out=run, resume=True).steps == step + 1
