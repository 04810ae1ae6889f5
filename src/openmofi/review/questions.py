"""A selection -> questions to people, each with all that is needed to answer it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from openmofi.corrections.answers import LabelAnswer, answers_path, read_answers
from openmofi.corrections.keys import name_keys, pair_keys, text_keys
from openmofi.corrections.standing import standing_of
from openmofi.review.pool import pool_of
from openmofi.review.queue import Queue
from openmofi.select.selection import Selection


@dataclass(frozen=True)
class Meaning:
    """An entity that the name may mean."""

    id: str
    label: str
    description: str
    score: float


@dataclass(frozen=True)
class LabelQuestion:
    """Does the image show what the label says?"""

    file: int
    """The labels file and the row in it, as `Selection.read` takes them."""
    row: int
    start: int
    """First code point of the name in the caption; `end` is behind its last."""
    end: int
    key: str
    shard: str
    caption: str
    name: str
    kept: bool
    """Whether the selection keeps the label."""
    changes: float
    """How many labels an answer is expected to change."""
    candidates: list[Meaning]
    """What it may mean, the chosen one first."""


class Questions:
    """The questions about a selection, the most useful ones first; safe to use from threads."""

    def __init__(self, selection: Selection):
        """Reads all labels.

        Raises:
            InputError: see `pool_of`.
        """
        self.selection = selection
        standing = standing_of(read_answers(answers_path(selection.i2e)).rows)
        self.queue = Queue(pool_of(selection, standing))
        self._lock = threading.Lock()

    def first(self, k: int) -> list[LabelQuestion]:
        """Returns the first questions."""
        with self._lock:
            worth = self.queue.worth()
            return [self._question(number, float(worth[number])) for number in self.queue.first(k)]

    def take(self, answer: LabelAnswer, *, file: int, row: int, start: int) -> None:
        """Takes an answer about a mention into account, if it is one that may be asked about."""
        pool = self.queue.pool
        with self._lock:
            for number in pool.at(file, row, start):
                pair = self.selection.read(file, [row])[0]
                chosen = self._candidates(pair, start, number)[0].id
                if answer.kind in ("right", "is"):
                    self.queue.answer(number, right=answer.entity == chosen)
                elif answer.kind == "not-shown" or answer.entity == chosen:
                    self.queue.answer(number, right=False)

    def skip(self, *, file: int, row: int, start: int) -> None:
        """Asks no more about a mention, as long as this object lives."""
        with self._lock:
            for number in self.queue.pool.at(file, row, start):
                self.queue.skip(number)

    def _question(self, number: int, worth: float) -> LabelQuestion:
        pool = self.queue.pool
        file, row, start = (int(one[number]) for one in (pool.file, pool.row, pool.start))
        pair = self.selection.read(file, [row])[0]
        mention = next(one for one in pair["entities"] if one["start"] == start)
        return LabelQuestion(
            file,
            row,
            start,
            end=mention["end"],
            key=pair["key"] or "",
            shard=pair["shard"] or "",
            caption=pair["caption"] or "",
            name=mention["surface"],
            kept=bool(pool.evidence[number] >= pool.threshold),
            changes=round(worth, 2),
            candidates=self._candidates(pair, start, number),
        )

    def _candidates(self, pair: dict[str, Any], start: int, number: int) -> list[Meaning]:
        """Returns the candidates of a mention, the one that the selection chose first."""
        mine = [one for one in pair["entities"] if one["start"] == start]
        names, ids = (pa.array([one[n] for one in mine], pa.string()) for n in ("surface", "id"))
        keys = pair_keys(name_keys(names), text_keys(ids))
        chosen = dict(zip(ids.to_pylist(), keys == self.queue.pool.pair[number], strict=True))
        mine.sort(key=lambda one: (not chosen[one["id"]], -one["score"]))
        rows = self.selection.kb.rows_of([one["id"] for one in mine])
        texts = self.selection.kb.texts
        return [
            Meaning(
                one["id"],
                texts.label[row].as_py() or one["id"],
                texts.description[row].as_py() or "",
                one["score"],
            )
            for one, row in zip(mine, rows, strict=True)
        ]


def open_questions(i2e: Path | str, *, name: str = "default") -> Questions:
    """Returns the questions about a selection of labels."""
    return Questions(Selection(Path(i2e), name))
