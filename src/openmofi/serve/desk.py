"""The desk at which people correct labels: questions, answers on disk, and what they would change.

Answers are stored, and on disk, before they are acknowledged. A preview is made by another process,
since deciding about millions of labels takes all cores for a while.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Literal

from openmofi.corrections.answers import LabelAnswer, add_answers, answers_path, read_answers
from openmofi.corrections.standing import Standing, standing_of
from openmofi.review.preview import Preview, apply, read_preview, revert, undo
from openmofi.review.questions import Questions
from openmofi.select.selection import Selection
from openmofi.serve.refusal import Refusal

State = Literal["none", "running", "ready", "failed"]
"""Of the preview."""


class Desk:
    """The desk of one selection; requests may come from many threads."""

    def __init__(self, selection: Selection):
        self.selection = selection
        self._lock = threading.Lock()
        self._questions: Questions | None = None
        self._made: subprocess.Popen[str] | None = None
        self._trouble = ""

    @property
    def i2e(self) -> Path:
        """The folder of the labels."""
        return self.selection.i2e

    @property
    def name(self) -> str:
        """The name of the selection."""
        return self.selection.folder.name

    def questions(self) -> Questions:
        """Returns the questions; reads all labels for the first ones.

        Raises:
            InputError: see `review.pool.pool_of`.
        """
        with self._lock:
            if self._questions is None:
                self._questions = Questions(self.selection)
            return self._questions

    def standing(self) -> Standing:
        """Returns what people have said by now."""
        return standing_of(read_answers(answers_path(self.i2e)).rows)

    def add(self, answer: LabelAnswer, place: tuple[int, int, int] | None) -> None:
        """Stores an answer; returns once it is on disk.

        Args:
            answer: what is said.
            place: labels file, row and first code point of the name, if it is about one.
        """
        add_answers(answers_path(self.i2e), [answer])
        if place is not None and self._questions is not None:
            file, row, start = place
            self._questions.take(answer, file=file, row=row, start=start)

    def undo(self, ids: list[str], by: str) -> list[LabelAnswer]:
        """Takes answers back.

        Raises:
            InputError: there is no such answer.
        """
        rows = undo(self.i2e, ids, by=by)
        self._forget()
        return rows

    def start_preview(self) -> None:
        """Begins to make a preview, unless one is being made or is there.

        Raises:
            Refusal: there is nothing to preview.
        """
        if not self.standing() and "corrections" not in self.selection.card:
            raise Refusal(404, "no_answers", "Nobody has corrected anything yet.")
        with self._lock:
            if self._is_busy() or read_preview(self.i2e, name=self.name) is not None:
                return
            command = [sys.executable, "-m", "openmofi", "review", "preview", "--json"]
            self._trouble = ""
            self._made = subprocess.Popen(
                [*command, "--name", self.name, str(self.i2e)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            threading.Thread(target=self._wait, args=(self._made,), daemon=True).start()

    def preview(self) -> tuple[State, Preview | None]:
        """Returns (whether there is one; the preview of the answers of now)."""
        with self._lock:
            if self._is_busy():
                return "running", None
            found = read_preview(self.i2e, name=self.name)
            if found is not None:
                return "ready", found
            return ("failed" if self._trouble else "none"), None

    @property
    def trouble(self) -> str:
        """Why the last preview failed, in one sentence, or ""."""
        return self._trouble

    def apply(self) -> Preview:
        """Puts the preview in the place of the selection.

        Raises:
            Refusal: there is none of the answers of now.
        """
        if self.preview()[0] != "ready":
            message = "There is no preview of the answers as they are now; make one first."
            raise Refusal(409, "no_preview", message)
        return apply(self.i2e, name=self.name)

    def revert(self, by: str) -> int:
        """Takes the last `apply` back; returns how many answers were undone.

        Raises:
            Refusal: nothing was applied.
        """
        former = self.selection.folder.with_name(f"{self.name}.before")
        if not (former / "card.json").is_file():
            raise Refusal(409, "nothing_applied", "Nothing was applied that could be taken back.")
        count = revert(self.i2e, name=self.name, by=by)
        self._forget()
        return count

    def stop(self) -> None:
        """Ends what is still being made."""
        if self._made is not None and self._made.poll() is None:
            self._made.terminate()

    def _forget(self) -> None:
        with self._lock:
            self._questions = None

    def _is_busy(self) -> bool:
        return self._made is not None and self._made.poll() is None

    def _wait(self, made: subprocess.Popen[str]) -> None:
        _, said = made.communicate()
        if made.returncode:
            last = (said.strip().splitlines() or ["it was ended"])[-1]
            self._trouble = last.removeprefix("openmofi: ")
