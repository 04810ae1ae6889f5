"""The answers of one person to the labels of an audit: answers.jsonl, appended and on disk at once.

    {"selection": "9f86…", "seed": 0, "by": "anna", "openmofi": "0.1.0"}
    {"draw": 1, "shard": "a.tar", "key": "7", "entity": "Q42", "answer": "yes", "time": "…"}

Nothing is ever rewritten: of several answers to a draw the last one counts, and null takes it back.
A line that a kill cut short is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openmofi
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import sync
from openmofi.files.tables import read_rows
from openmofi.review.audit.draws import Draw

YES, NO, UNSURE = "yes", "no", "unsure"
_MEANT = {
    **{YES: YES, NO: NO, UNSURE: UNSURE},
    **{"y": YES, "n": NO, "u": UNSURE, "right": YES, "wrong": NO, "1": YES, "0": NO},
}


class AnswerFile:
    """Reads and appends answers."""

    def __init__(self, path: Path, *, digest: str, seed: int, by: str):
        """Opens or begins the file.

        Raises:
            MismatchError: its answers are to another selection or seed.
            InputError: it is damaged.
        """
        self.path = path
        self.head = {"selection": digest, "seed": seed, "by": by}
        self.given: dict[int, str] = {}
        """The answer that counts, by the number of the draw."""
        self.times: dict[int, str] = {}
        self.changed = 0
        """Number of answers that replaced or took back an earlier one."""
        if path.exists():
            self._read()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self.head | {"openmofi": openmofi.__version__})
            sync(path.parent)

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))
        lines = whole.splitlines()
        if not lines:
            self._append(self.head | {"openmofi": openmofi.__version__})
            return
        head = self._parsed(1, lines[0], ("selection", "seed"))
        if head["selection"] != self.head["selection"]:
            raise MismatchError(
                f"The answers in {self.path} are to other labels than the selection has now; give "
                "--by another name, or move that file away."
            )
        if head["seed"] != self.head["seed"]:
            raise MismatchError(
                f"The answers in {self.path} are to the draws of --seed {head['seed']}; give "
                "that seed, or --by another name."
            )
        for number, line in enumerate(lines[1:], 2):
            answer = self._parsed(number, line, ("draw", "answer", "time"))
            self._note(answer["draw"], answer["answer"], answer["time"])

    def _parsed(self, number: int, line: bytes, names: Sequence[str]) -> dict[str, Any]:
        """Returns the fields of a line."""
        try:
            fields = json.loads(line)
            return {name: fields[name] for name in names}
        except (ValueError, KeyError, TypeError):
            raise InputError(
                f"Line {number} of {self.path} is damaged; expected JSON with {', '.join(names)}: "
                "mend it, or give --by another name."
            ) from None

    def _note(self, draw: int, answer: str | None, time: str) -> None:
        self.changed += draw in self.given
        self.given.pop(draw, None)
        if answer is not None:
            self.given[draw], self.times[draw] = answer, time

    def add(self, draw: Draw, answer: str | None) -> None:
        """Stores an answer, or takes the earlier one back; it is on disk when this returns."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        self._append({"draw": draw.number, **draw.names(), "answer": answer, "time": time})
        self._note(draw.number, answer, time)

    def _append(self, line: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def unbroken(self) -> list[str]:
        """Returns the answers up to the first draw that has none: only these count."""
        answers = []
        while (answer := self.given.get(len(answers) + 1)) is not None:
            answers.append(answer)
        return answers


def read_answers(path: Path, draws: Sequence[Draw], head: dict[str, Any]) -> list[tuple[Draw, str]]:
    """Reads the answers in a file of the page, or a table with the same columns.

    Args:
        path: JSON lines or CSV with the columns shard, key, entity and answer; draw is optional.
            The page's first line says which selection and seed it is about.
        draws: what was asked.
        head: selection, seed and by.

    Raises:
        InputError: a row has no answer that is known, or is about a label that was not drawn.
        MismatchError: the answers are to another selection or seed, or by somebody else.
    """
    asked = {tuple(draw.names().values()): draw for draw in reversed(draws)}
    by_number = {str(draw.number): draw for draw in draws}
    found = []
    for row in read_rows(path):
        if row.refused:
            raise InputError(f"Line {row.line} of {path} cannot be read: {row.refused.reason}.")
        if "selection" in row.fields:
            wrong = [name for name in head if row.fields.get(name) != head[name]]
            if wrong:
                raise MismatchError(
                    f"The answers in {path} have {wrong[0]} {row.fields.get(wrong[0])!r}; expected "
                    f"{head[wrong[0]]!r}: give the flags that its page was written with."
                )
            continue
        answer = str(row.fields.get("answer") or "").strip().lower()
        if not answer:
            continue
        names = tuple(str(row.fields.get(name) or "") for name in ("shard", "key", "entity"))
        if answer not in _MEANT:
            raise InputError(
                f"Line {row.line} of {path} answers {answer!r}; expected yes, no or unsure."
            )
        if names not in asked:
            raise InputError(
                f"Line {row.line} of {path} is about shard {names[0]!r}, key {names[1]!r}, entity "
                f"{names[2]!r}, which was not drawn; expected one of the {len(draws):,} labels of "
                "this --seed and --checks."
            )
        # Two images of one shard may have the same key; then the number tells them apart.
        numbered = by_number.get(str(row.fields.get("draw")), asked[names])
        same = tuple(numbered.names().values()) == names
        found.append((numbered if same else asked[names], _MEANT[answer]))
    return found
