import json
import sys
from types import SimpleNamespace

import pytest

from openmofi.errors import SettingsError
from openmofi.train.metrics_log import MetricsLog, drop_after, last_loss
from selected import tiny


@pytest.fixture
def loggers(monkeypatch):
    """Stands for the three packages and notes what they are told."""
    told = []

    def package(name):
        return SimpleNamespace(
            init=lambda **given: told.append((name, "init", given)),
            log=lambda metrics, step: told.append((name, step, metrics)),
            finish=lambda: told.append((name, "finish")),
        )

    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, package(name))

    class Writer:
        def __init__(self, folder):
            told.append(("tensorboard", "init", folder))
            self.add_scalar = lambda name, value, step: told.append((name, value, step))
            self.close = lambda: told.append(("tensorboard", "finish"))

    module = SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return told


def test_every_line_is_one_object_and_what_is_not_finite_is_null(tmp_path):
    log = MetricsLog(tmp_path, tiny())
    log.write(1, {"loss": 0.123456789})
    log.write(2, {"loss": float("nan"), "skipped": 1})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.12346}, {"step": 2, "loss": None, "skipped": 1}]
    assert last_loss(tmp_path / "metrics.jsonl") == 0.12346


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_logger_gets_the_same_numbers(tmp_path, loggers, name):
    log = MetricsLog(tmp_path, tiny(loggers=[name]))
    log.write(3, {"loss": 0.5, "accuracy": float("inf")})
    log.close()
    assert next(entry[1] for entry in loggers if entry[0] == name) == "init"
    assert loggers[-1] == (name, "finish")
    wanted = ("loss", 0.5, 3) if name == "tensorboard" else (name, 3, {"loss": 0.5})
    assert wanted in loggers
    assert len(loggers) == 3


def test_two_runs_of_one_name_are_two_for_wandb(tmp_path, loggers):
    for place in ("a", "b", "a"):
        MetricsLog(tmp_path / place / "run", tiny(loggers=["wandb"]))
    first, second, again = (given["id"] for _, _, given in loggers)
    assert first == again != second


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SettingsError, match=r"pip install 'openmofi\[wandb\]'"):
        MetricsLog(tmp_path, tiny(loggers=["wandb"]))


def test_a_disk_without_room_is_said_once_and_the_run_goes_on(tmp_path, capsys):
    log = MetricsLog(tmp_path / "gone", tiny())
    for step in range(3):
        log.write(step, {"loss": 1.0})
    assert capsys.readouterr().err.count("warning: cannot write") == 1


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3, "lo')
    drop_after(path, 1)
    assert path.read_text() == '{"step": 1, "loss": 2.0}\n'
