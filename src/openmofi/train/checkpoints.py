"""Step checkpoints in PyTorch's distributed format -> checkpoints/step-N, `latest`.

They are written during the steps that follow, appear complete or not at all, and can be read by
any number of processes. `run.json` inside states the step and the data.
"""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from openmofi.errors import InputError, MismatchError, OpenMOFIError
from openmofi.files.folders import replace_file, sync_tree
from openmofi.train.distributed import World

_CARD = "run.json"
_DAMAGE = (CheckpointException, OSError, EOFError, ValueError, KeyError, RuntimeError)


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, folder: Path, world: World, *, keep: int):
        self.folder, self.world, self.keep = folder, world, keep
        self._writing: tuple[int, Future[Any]] | None = None
        self._step = 0
        self._failed: BaseException | None = None
        """Why the newest checkpoint could not be written."""
        if world.is_first:
            for partial in folder.glob(".step-*.tmp"):
                shutil.rmtree(partial)  # of a run that was killed
        world.barrier()

    def save(self, step: int, state: dict[str, Any], card: dict[str, Any]) -> None:
        """Copies the state and begins to write it, after finishing the previous checkpoint."""
        self.finish()
        self._step = step
        partial, error = self._partial(step), None
        if self.world.is_first:
            try:
                partial.mkdir(parents=True, exist_ok=True)
                (partial / _CARD).write_text(json.dumps({"step": step, **card}))
            except OSError as found:
                error = found
        if self.world.any(error is not None):  # no process may write, or the others would wait
            self._failed = error or OSError("the first process could not begin it")
            self._complain(step, self._failed)
            return
        writing: Any = dcp.async_save(
            state,
            storage_writer=dcp.FileSystemWriter(partial),
            process_group=self.world.checkpoint_group,
        )
        self._writing, self._failed = (step, writing), None

    def poll(self) -> None:
        """Publishes the checkpoint that is being written, if it is complete."""
        if self._writing is not None and self._writing[1].done():
            self.finish()

    def finish(self, *, must: bool = False) -> None:
        """Waits for the checkpoint that is being written.

        Args:
            must: whether a failure ends the run, instead of printing a warning.

        Raises:
            OpenMOFIError: `must` is true and the newest checkpoint could not be written.
        """
        if self._writing is not None:
            (self._step, writing), self._writing = self._writing, None
            try:
                writing.result()
                if self.world.is_first:
                    self._publish(self._step)
            except _DAMAGE as error:
                self._failed = error
                self._complain(self._step, error)
        if must and self._failed is not None:
            raise OpenMOFIError(self._sentence(self._step, self._failed)) from self._failed

    def _publish(self, step: int) -> None:
        final = self.folder / f"step-{step}"
        if final.exists():
            shutil.rmtree(final)
        sync_tree(self._partial(step))
        self._partial(step).rename(final)
        with replace_file(self.folder / "latest") as pointer:
            pointer.write_text(final.name + "\n")
        steps = self._steps()
        place = steps.index(final)
        # Later steps are left from before the run was resumed at an earlier checkpoint.
        for old in (*steps[: max(place + 1 - self.keep, 0)], *steps[place + 1 :]):
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
            f"({_reason(error)}); the last good one is {last}; make room and continue with "
            "--resume."
        )

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Returns (newest checkpoint, its run.json), or None if there is none yet.

        Raises:
            InputError: `latest` does not name a readable checkpoint.
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
            MismatchError: it is of another network.
        """
        try:
            dcp.load(
                state,
                storage_reader=dcp.FileSystemReader(path),
                process_group=self.world.checkpoint_group,
            )
        except _DAMAGE as error:
            if "Missing key" in _reason(error):
                raise MismatchError(
                    f"The checkpoint {str(path)!r} is of another network ({_reason(error)}); start "
                    "a new run with another --out."
                ) from error
            raise self._damaged(path) from error

    def _damaged(self, path: Path) -> InputError:
        others = [p.name for p in reversed(self._steps()) if p != path]
        advice = f"put {others[0]} into" if others else "delete"
        return InputError(
            f"The checkpoint {str(path)!r} is missing or damaged; {advice} "
            f"{str(self.folder / 'latest')!r} to resume from there."
        )


def _reason(error: BaseException) -> str:
    """Returns the innermost message of an error, on one line."""
    if isinstance(error, CheckpointException) and error.failures:
        inner = next(iter(error.failures.values()))
        error = inner[0] if isinstance(inner, tuple) else inner
    text = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1:] or ["unknown"]
    return text if isinstance(text, str) else text[0]
