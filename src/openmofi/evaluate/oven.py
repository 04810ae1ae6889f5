"""OVEN (arXiv 2302.11154): Wikidata entities recognised in images, scored as its authors do.

Comes in: two JSONL files, or folders of them. {"data_id", "entity_id", "data_split", ...} holds
the truth (oven_entity_val.jsonl, oven_query_val.jsonl), {"data_id", "pred_entity_id"} the answers.
Goes out: top-1 accuracy by id. A split's score is the harmonic mean of its seen and unseen
entities, and the overall score that of the entity and the query split
(github.com/edchengg/oven_eval). Two things differ: scores are shares, not rounded percentages, and
questions without an answer count as wrong, whereas the authors leave them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmofi.errors import InputError
from openmofi.files.tables import read_json_lines

_ANSWER_KEYS = ("pred_entity_id", "prediction")
_ID = re.compile(r"Q[0-9]+")
_PARTS, _KINDS = ("entity", "query"), ("unseen", "seen")


@dataclass(frozen=True)
class SplitScore:
    """Scores of the entity or of the query split."""

    seen: float | None
    """Accuracy on entities of the training data; None if there is no such question."""
    unseen: float | None
    num_seen: int
    num_unseen: int
    score: float | None
    """Harmonic mean of the two; None if either is missing."""


@dataclass(frozen=True)
class OvenScore:
    """Scores of answers to OVEN's questions."""

    entity: SplitScore | None
    query: SplitScore | None
    overall: float | None
    """Harmonic mean of the splits' scores; None if either is missing."""
    questions: int
    missing: int
    """Questions without an answer, which count as wrong."""
    not_ids: int
    """Answers that are not a Wikidata id (Q and a number), which count as wrong."""


def score_oven(predictions: Path | str, truth: Path | str) -> OvenScore:
    """Scores answers against the truth.

    Args:
        predictions: a .jsonl file, or a folder of them, with data_id and pred_entity_id (or
            prediction); null means no answer.
        truth: the same with data_id, entity_id and data_split.

    Raises:
        InputError: a line is damaged or lacks a field, or an id is unknown or occurs twice.
    """
    questions = _questions(Path(truth))
    answers = _answers(Path(predictions), questions)
    results: dict[tuple[str, str], list[bool]] = {}
    for data_id, (place, entity) in questions.items():
        results.setdefault(place, []).append(answers.get(data_id) == entity)
    scores: dict[str, SplitScore | None] = {}
    for part in _PARTS:
        seen, unseen = (results.get((part, kind), []) for kind in ("seen", "unseen"))
        first, second = (sum(right) / len(right) if right else None for right in (seen, unseen))
        score = SplitScore(first, second, len(seen), len(unseen), harmonic_mean(first, second))
        scores[part] = score if seen or unseen else None
    entity, query = scores["entity"], scores["query"]
    given = [answer for answer in answers.values() if answer is not None]
    return OvenScore(
        entity,
        query,
        harmonic_mean(entity.score if entity else None, query.score if query else None),
        len(questions),
        len(questions) - len(given),
        sum(not _ID.fullmatch(answer) for answer in given),
    )


def harmonic_mean(first: float | None, second: float | None) -> float | None:
    """Returns the harmonic mean, 0 if either is 0; None if either is missing."""
    if first is None or second is None:
        return None
    return 2 * first * second / (first + second) if first and second else 0.0


def _questions(path: Path) -> dict[str, tuple[tuple[str, str], str]]:
    """Returns {data_id: ((entity or query, seen or unseen), true id)}."""
    questions = {}
    for where, row in _rows(path):
        data_id, entity, split = (
            _field(row, where, key) for key in ("data_id", "entity_id", "data_split")
        )
        # The authors name the part in data_id and in the file, and in data_split only seen or
        # unseen. A file that was joined from both may still have the name of one, so it comes last.
        named = ([part for part in _PARTS if part in text] for text in (split, data_id, where))
        part = next((parts[0] for parts in named if len(parts) == 1), None)
        kind = next((kind for kind in _KINDS if f"_{kind}" in split), None)
        if part is None or kind is None:
            raise InputError(
                f"{where}: data_split {split!r} of {data_id!r} names no split; expected _seen or "
                "_unseen in it, and entity or query in it, in data_id or in the file's name."
            )
        if data_id in questions:
            raise InputError(f"{where}: data_id {data_id!r} is there twice; remove one of the two.")
        questions[data_id] = ((part, kind), entity)
    if not questions:
        raise InputError(f"{str(path)!r} holds no questions; pass OVEN's .jsonl files.")
    return questions


def _answers(path: Path, questions: dict[str, Any]) -> dict[str, str | None]:
    answers: dict[str, str | None] = {}
    for where, row in _rows(path):
        data_id = _field(row, where, "data_id")
        key = next((key for key in _ANSWER_KEYS if key in row), None)
        if key is None or not isinstance(row[key], str | None):
            raise InputError(
                f"{where}: no text in pred_entity_id; expected a Wikidata id such as Q31."
            )
        if data_id not in questions or data_id in answers:
            why = "is answered twice" if data_id in answers else "is not among the questions"
            raise InputError(f"{where}: data_id {data_id!r} {why}; answer each question once.")
        answers[data_id] = row[key]
    return answers


def _field(row: dict[str, Any], where: str, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: {key} is {value!r}; expected a text.")
    return value


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (file and line, the object) of each line."""
    if not path.exists():
        raise InputError(f"There is no {str(path)!r}; pass a .jsonl file or a folder of them.")
    files = sorted(path.glob("[!.]*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"The folder {str(path)!r} holds no .jsonl file; pass one that does.")
    for file in files:
        for row in read_json_lines(file):
            where = f"{file.name}, line {row.line}"
            if row.refused:
                raise InputError(f"{where} is not a JSON object; fix or remove it.")
            yield where, row.fields
