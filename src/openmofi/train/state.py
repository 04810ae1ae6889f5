"""Step checkpoints: everything a run needs to go on exactly -> checkpoints/step-N, `latest`."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from openmofi.errors import InputError

_KEEP = 2


def save_state(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Writes checkpoints/step-N whole or not at all, then points `latest` at it."""
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / f"step-{step}", folder / f".step-{step}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    torch.save(state, partial / "state.pt")
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    _point_latest(folder, final.name)
    _drop_old(folder)
    return final


def _point_latest(folder: Path, name: str) -> None:
    pointer = folder / ".latest.tmp"
    pointer.write_text(name + "\n")
    os.replace(pointer, folder / "latest")


def _drop_old(folder: Path) -> None:
    steps = sorted(folder.glob("step-*"), key=lambda path: int(path.name[5:]))
    for old in steps[:-_KEEP]:
        shutil.rmtree(old)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Returns the newest whole checkpoint, or None if there is none yet.

    Raises:
        InputError: `latest` names a checkpoint that cannot be read.
    """
    pointer = folder / "latest"
    if not pointer.is_file():
        return None
    path = folder / pointer.read_text().strip() / "state.pt"
    if not zipfile.is_zipfile(path):  # torch would take anything else for its old format
        raise InputError(
            f"The checkpoint {str(path)!r} is missing or damaged; put an older step's name into "
            f"{str(pointer)!r} to resume from there."
        )
    return torch.load(path, map_location="cpu", weights_only=True)
