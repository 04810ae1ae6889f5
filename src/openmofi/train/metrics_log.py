"""The measurements of a run by line: metrics.jsonl, and optionally TensorBoard, W&B or Trackio."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from openmofi.config import TrainSettings, as_dict
from openmofi.errors import SettingsError

_PROJECT = "openmofi"
Logger = tuple[Callable[[int, Mapping[str, float]], None], Callable[[], None]]


class MetricsLog:
    """Writes one line per call, and passes the same to the loggers."""

    def __init__(self, out: Path, settings: TrainSettings, *, writes: bool = True):
        """Starts the loggers.

        Args:
            out: the run's directory.
            settings: settings with the names of the loggers.
            writes: whether this process writes; only the first one does.

        Raises:
            SettingsError: the package of a logger is not installed.
        """
        self.path = out / "metrics.jsonl"
        self._writes, self._complained = writes, False
        names = settings.loggers if writes else ()
        self._loggers = [_OPEN[name](out, settings) for name in names]

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a line; a full disk is reported once and does not end the run."""
        if not self._writes:
            return
        rounded = {n: round(v, 5) if math.isfinite(v) else None for n, v in metrics.items()}
        try:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": step, **rounded}) + "\n")
        except OSError as error:
            if not self._complained:
                print(f"warning: cannot write {str(self.path)!r}: {error}", file=sys.stderr)
            self._complained = True
        for log, _ in self._loggers:
            log(step, {name: value for name, value in metrics.items() if math.isfinite(value)})

    def close(self) -> None:
        """Lets the loggers finish."""
        for _, close in self._loggers:
            close()


def last_loss(path: Path) -> float:
    """Returns the loss of the last line that has one."""
    losses = [line["loss"] for line in _lines(path) if line.get("loss") is not None]
    return losses[-1] if losses else float("nan")


def last_scores(path: Path) -> dict[str, float]:
    """Returns the last scores on held-out images, or an empty dictionary."""
    lines = [line for line in _lines(path) if any(name.startswith("heldout_") for name in line)]
    return {name: v for name, v in lines[-1].items() if name != "step"} if lines else {}


def drop_after(path: Path, step: int) -> None:
    """Removes the lines after the checkpoint from which the run resumes."""
    if path.is_file():
        kept = [json.dumps(line) + "\n" for line in _lines(path) if line["step"] <= step]
        path.write_text("".join(kept))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Returns the complete lines; a kill may have cut the last."""
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


def _open_tensorboard(out: Path, settings: TrainSettings) -> Logger:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise _missing("tensorboard") from None
    writer = SummaryWriter(str(out / "tensorboard"))

    def log(step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return log, writer.close


def _open_wandb(out: Path, settings: TrainSettings) -> Logger:
    try:
        import wandb  # pyrefly: ignore[missing-import]
    except ImportError:
        raise _missing("wandb") from None
    # From the full path, so that two runs called `run` stay apart.
    place = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]
    return _open_like_wandb(wandb, out, settings, dir=str(out), id=place, resume="allow")


def _open_trackio(out: Path, settings: TrainSettings) -> Logger:
    try:
        import trackio  # pyrefly: ignore[missing-import]
    except ImportError:
        raise _missing("trackio") from None
    return _open_like_wandb(trackio, out, settings, resume="allow")


def _open_like_wandb(package: Any, out: Path, settings: TrainSettings, **more: Any) -> Logger:
    """Trackio has W&B's interface."""
    package.init(project=_PROJECT, name=out.name, config=as_dict(settings), **more)

    def log(step: int, metrics: Mapping[str, float]) -> None:
        package.log(dict(metrics), step=step)

    return log, package.finish


_OPEN: dict[str, Callable[[Path, TrainSettings], Logger]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "trackio": _open_trackio,
}


def _missing(name: str) -> SettingsError:
    return SettingsError(
        f"loggers names {name}, which is not installed: pip install 'openmofi[{name}]'."
    )
