"""Answers from the command line -> the file beside the labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.corrections.answers import (
    OF_PAIRS,
    LabelAnswer,
    add_answers,
    answers_path,
    merge_answers,
    new_answer,
    read_answers,
)
from openmofi.corrections.standing import standing_of
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.kb.text import canonical
from openmofi.shards import commits_of

_SHOWN = 5


def give_answer(
    i2e: Path | str, kind: str, *, name: str, key: str = "", shard: str = "", **fields: str
) -> LabelAnswer:
    """Stores an answer; looks up the pair that it is about.

    Raises:
        InputError: there is no such pair or entity, several have this key, or the caption has no
            such name.
    """
    commits_of(Path(i2e), "labels")  # it is a folder of labels
    caption = ""
    if kind in OF_PAIRS:
        if not key:
            raise InputError(f"The answer {kind!r} is about one pair; give its --key.")
        shard, caption = _pair(Path(i2e), key, shard, name)
    entity = fields.get("entity", "")
    run = json.loads((Path(i2e) / "run.json").read_text())
    if entity and KnowledgeBase.open(Path(run["kb_path"])).row_of(entity) is None:
        raise InputError(f"The knowledge base {run['kb_path']!r} has no entity {entity!r}.")
    found = new_answer(kind, name=name, key=key, shard=shard, caption=caption, **fields)
    add_answers(answers_path(i2e), [found])
    return found


def last_answers(i2e: Path | str, count: int) -> list[str]:
    """Returns the ids of the last answers that hold."""
    standing = standing_of(read_answers(answers_path(i2e)).rows)
    return [answer.id for answer in standing.answers[max(len(standing.answers) - count, 0) :]]


def merge_files(i2e: Path | str, files: Sequence[Path]) -> int:
    """Adds the answers of files, or of folders of labels; returns how many were new.

    Raises:
        InputError: a file is missing or holds no answers.
    """
    places = [answers_path(file) if file.is_dir() else file for file in files]
    for place in places:
        if not place.is_file():
            raise InputError(f"There are no answers at {str(place)!r}.")
    rows = [row for place in places for row in read_answers(place).rows]
    commits_of(Path(i2e), "labels")  # it is a folder of labels
    return merge_answers(answers_path(i2e), rows)


def _pair(i2e: Path, key: str, shard: str, name: str) -> tuple[str, str]:
    """Returns (shard, caption) of a pair."""
    columns = ["key", "shard", "caption", "entities"]
    found = []
    for commit in commits_of(i2e, "labels"):
        rows = pq.read_table(i2e / commit.file, columns=columns, filters=pc.field("key") == key)
        found += [row for row in rows.to_pylist() if shard in ("", row["shard"])]
    if not found:
        where = f" in the shard {shard!r}" if shard else ""
        raise InputError(f"{str(i2e)!r} has no pair with the key {key!r}{where}.")
    if len(found) > 1:
        shards = ", ".join(repr(row["shard"]) for row in found[:_SHOWN])
        raise InputError(f"{len(found):,} pairs have the key {key!r}: {shards}; give --shard.")
    [row] = found
    names = {one["surface"] for one in row["entities"] or ()}
    if canonical(name) not in map(canonical, names):
        known = ", ".join(sorted(map(repr, names))) or "none"
        raise InputError(f"The caption of {key!r} has no name {name!r}; its names: {known}.")
    return row["shard"] or "", row["caption"] or ""
