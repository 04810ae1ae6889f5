"""Step checkpoints in PyTorch's distributed format -> checkpoints/step-N, `latest`.

They are written beside the steps that follow, appear whole or not at all, and can be read by
another number of processes than wrote them. `run.json` inside says which step and which data.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from openmofi.errors import InputError, OpenMOFIError
from openmofi.train.distributed import World

_CARD = "run.json"
_DAMAGE = (CheckpointException, OSError, EOFError, ValueError, KeyError, RuntimeError)


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, folder: Path, world: World, *, keep: int):
        self.folder, self.world, self.keep = folder, world, keep
        self._writing: tuple[int, Future[Any]] | None = None
        if world.is_first:
            for partial in folder.glob(".step-*.tmp"):
                shutil.rmtree(partial)  # of a run that was killed
        world.barrier()

    def save(self, step: int, state: dict[str, Any], card: dict[str, Any]) -> None:
        """Copies the state and begins to write it; an earlier one is finished first."""
        self.finish()
        partial = self._partial(step)
        try:
            if self.world.is_first:
                partial.mkdir(parents=True, exist_ok=True)
                (partial / _CARD).write_text(json.dumps({"step": step, **card}))
            writing: Any = dcp.async_save(
                state,
                storage_writer=dcp.FileSystemWriter(partial),
                process_group=self.world.checkpoint_group,
            )
        except OSError as error:
            self._complain(step, error)
            return
        self._writing = (step, writing)

    def poll(self) -> None:
        """Publishes the checkpoint that is being written, if it is whole by now."""
        if self._writing is not None and self._writing[1].done():
            self.finish()

    def finish(self, *, must: bool = False) -> None:
        """Waits for the checkpoint that is being written.

        Args:
            must: a failure ends the run; otherwise it is said, and the run goes on.

        Raises:
            OpenMOFIError: it must, and cannot.
        """
        if self._writing is None:
            return
        (step, writing), self._writing = self._writing, None
        try:
            writing.result()
            if self.world.is_first:
                self._publish(step)
        except _DAMAGE as error:
            self._complain(step, error)
            if must:
                raise OpenMOFIError(self._sentence(step, error)) from error

    def _publish(self, step: int) -> None:
        final = self.folder / f"step-{step}"
        if final.exists():
            shutil.rmtree(final)
        self._partial(step).rename(final)
        pointer = self.folder / ".latest.tmp"
        pointer.write_text(final.name + "\n")
        os.replace(pointer, self.folder / "latest")
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(old)

    def _steps(self) -> list[Path]:
        found = self.folder.glob("step-*")
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _partial(self, step: int) -> Path:
        return self.folder / f".step-{step}.tmp"

    def _complain(self, step: int, error: BaseException) -> None:
        if self.world.is_first:
            shutil.rmtree(self._partial(step), ignore_errors=True)
            print(f"warning: {self._sentence(step, error)}", file=sys.stderr)

    def _sentence(self, step: int, error: BaseException) -> str:
        pointer = self.folder / "latest"
        last = pointer.read_text().strip() if pointer.is_file() else "none"
        return (
            f"The checkpoint of step {step} could not be written to {str(self.folder)!r} "
            f"({_reason(error)}); the last good one is {last}, make room and --resume goes on."
        )

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Returns (newest checkpoint, its run.json), or None if there is none yet.

        Raises:
            InputError: `latest` names none that can be read.
        """
        pointer = self.folder / "latest"
        if not pointer.is_file():
            return None
        path = self.folder / pointer.read_text().strip()
        try:
            return path, json.loads((path / _CARD).read_text())
        except (OSError, ValueError):
            raise self._damaged(path) from None

    def load(self, path: Path, state: dict[str, Any]) -> None:
        """Reads a checkpoint into the tensors of a state.

        Raises:
            InputError: it is damaged.
        """
        try:
            dcp.load(
                state,
                storage_reader=dcp.FileSystemReader(path),
                process_group=self.world.checkpoint_group,
            )
        except _DAMAGE as error:
            raise self._damaged(path) from error

    def _damaged(self, path: Path) -> InputError:
        others = [p.name for p in reversed(self._steps()) if p != path]
        advice = f"put {others[0]} into" if others else "delete"
        return InputError(
            f"The checkpoint {str(path)!r} is missing or damaged; {advice} "
            f"{str(self.folder / 'latest')!r} to resume from there."
        )


def _reason(error: BaseException) -> str:
    """Returns the innermost message of an error, in one line."""
    if isinstance(error, CheckpointException) and error.failures:
        inner = next(iter(error.failures.values()))
        error = inner[0] if isinstance(inner, tuple) else inner
    text = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1:] or ["unknown"]
    return text if isinstance(text, str) else text[0]
