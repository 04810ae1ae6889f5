"""Reads benchmarks of entity linking: a JSON-lines file (also .gz, .bz2, .zst) -> LinkingData.

Four published formats are recognised by the keys of the first readable line:
  MELBench (https://github.com/seukgcode/MELBench)   sentence, mentions, entities, answer
  ELEVANT  (https://github.com/ad-freiburg/elevant)  text, labels with span and entity_id
  ZELDA    (https://github.com/flairNLP/zelda)       text, index, wikipedia_titles
  OVEN     (https://arxiv.org/abs/2302.11154)        data_id, question, entity_id, entity_text
Spans count code points of the text. Unusable lines and mentions are counted by reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from openmofi.errors import InputError
from openmofi.files.tables import read_json_lines
from openmofi.kb.titles import plain_title

Format = Literal["melbench", "elevant", "zelda", "oven", "i2e"]

# Annotators' words for "no entity of the knowledge base"; ELEVANT also numbers unknown entities.
_NIL = re.compile(r"|<NIL>|<NO_MAPPING>|NIL|Unknown\d*")
# Types that ELEVANT annotates but does not require a linker to find.
_OPTIONAL_TYPES = ("DATETIME", "QUANTITY")


@dataclass(frozen=True)
class GoldMention:
    """A span of a document and the entity that it means."""

    start: int
    """Code points of the document's text."""
    end: int
    id: str | None
    """Gold id, or a Wikipedia title if `LinkingData.ids` says so; None means NIL, no entity."""
    label: str = ""
    """Name of the entity in the data; empty if the data gives none."""
    optional: bool = False
    """A date, a quantity, or marked as optional: neither finding nor missing it counts."""
    probability: float = 1.0
    """That this is meant, where images told and nobody annotated; see linking_images.py."""


@dataclass(frozen=True)
class GoldDocument:
    """A text with its gold mentions or, for OVEN, with the one entity that it asks for."""

    key: str
    """Id of the document in its file."""
    text: str
    mentions: tuple[GoldMention, ...] = ()
    entity: GoldMention | None = None
    """OVEN only: the entity that the text asks for; its span is empty."""
    split: str = ""
    """OVEN only: data_split, such as val_seen."""
    evaluated: tuple[int, int] | None = None
    """The annotated part of the text; None for the whole text."""

    @property
    def required(self) -> list[GoldMention]:
        """The mentions that a linker should find: with an entity, and not optional."""
        return [m for m in self.mentions if m.id is not None and not m.optional]


@dataclass(frozen=True)
class LinkingData:
    """One benchmark file."""

    name: str
    format: Format
    documents: tuple[GoldDocument, ...]
    ids: Literal["kb", "enwiki"] = "kb"
    """Whether gold ids are ids of a knowledge base or titles of English Wikipedia."""
    refused: dict[str, int] = field(default_factory=dict)
    """Number of lines and mentions left out, by reason."""


class _MelLine(msgspec.Struct):
    sentence: str
    mentions: str | list[str]
    answer: str | list[str]
    entities: str | list[str] = ""
    id: str | int = ""


class _ElevantLabel(msgspec.Struct):
    span: tuple[int, int]
    entity_id: str
    name: str = ""
    type: str = ""
    parent: int | None = None
    optional: bool = False


class _ElevantLine(msgspec.Struct):
    text: str
    labels: list[_ElevantLabel]
    id: str | int = ""
    evaluation_span: tuple[int, int] | None = None


class _ZeldaLine(msgspec.Struct):
    text: str
    index: list[tuple[int, int]]
    wikipedia_titles: list[str]
    id: str | int = ""


class _OvenLine(msgspec.Struct):
    data_id: str
    entity_id: str
    question: str = ""
    caption: str = ""
    entity_text: str = ""
    data_split: str = ""


Refuse = Callable[[str], None]


def read_linking(path: Path | str) -> LinkingData:
    """Reads a benchmark of entity linking, whatever its format.

    Reasons for refused lines: bad_json, not_utf8, wrong_fields (missing, or of another type),
    truncated_file. Reasons for refused mentions: mention_not_in_text, bad_span (outside its
    text), unequal_lists (a line has more mentions than answers, or fewer), child_label (ELEVANT's
    alternatives inside a longer mention), no_gold_id.

    Raises:
        InputError: the file is missing or empty, or its format is unknown.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{str(path)!r} {what}; expected a .jsonl file of a linking benchmark.")
    refused: Counter[str] = Counter()
    lines: list[dict[str, Any]] = []
    for row in read_json_lines(path):
        if row.refused:
            reason = row.refused.reason
            refused["wrong_fields" if reason == "bad_structure" else reason] += 1
        else:
            lines.append(row.fields)
    if not lines:
        reasons = f" ({', '.join(refused)})" if refused else ""
        raise InputError(f"{str(path)!r} has no readable line{reasons}; expected JSON lines.")
    kind = _recognise(path, lines[0])
    struct, make = _FORMATS[kind]

    def refuse(reason: str) -> None:
        refused[reason] += 1

    documents: list[GoldDocument] = []
    for number, line in enumerate(lines):
        try:
            typed = msgspec.convert(line, struct)
        except msgspec.ValidationError:
            refuse("wrong_fields")
            continue
        document = make(typed, str(number), refuse)
        if document is not None:
            documents.append(document)
    if not documents:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(refused.items()))
        raise InputError(
            f"No line of {str(path)!r} can be used ({reasons}); expected the {kind} format."
        )
    name = path.name.split(".")[0]
    ids = "enwiki" if kind == "zelda" else "kb"
    return LinkingData(name, kind, tuple(documents), ids, dict(sorted(refused.items())))


_KEYS: dict[Format, tuple[str, ...]] = {
    "melbench": ("sentence", "mentions", "answer"),
    "elevant": ("text", "labels"),
    "zelda": ("text", "index", "wikipedia_titles"),
    "oven": ("data_id", "question", "entity_id"),
}


def _recognise(path: Path, line: dict[str, Any]) -> Format:
    for kind, keys in _KEYS.items():
        if all(key in line for key in keys):
            return kind
    expected = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in _KEYS.items())
    raise InputError(
        f"The first line of {str(path)!r} has the keys {', '.join(line) or '(none)'}; expected "
        f"those of a linking benchmark ({expected})."
    )


def _from_melbench(line: _MelLine, key: str, refuse: Refuse) -> GoldDocument:
    mentions, answers = _as_list(line.mentions), _as_list(line.answer)
    labels = _as_list(line.entities)
    if len(mentions) != len(answers):
        refuse("unequal_lists")
        mentions = answers = []
    if len(labels) != len(mentions):
        labels = [""] * len(mentions)
    used: set[tuple[int, int]] = set()
    found = []
    for mention, answer, label in zip(mentions, answers, labels, strict=True):
        span = find_span(line.sentence, mention, used)
        if span is None:
            refuse("mention_not_in_text")
            continue
        used.add(span)
        found.append(GoldMention(*span, _gold_id(answer), label))
    return GoldDocument(str(line.id) or key, line.sentence, tuple(found))


def find_span(text: str, mention: str, used: set[tuple[int, int]]) -> tuple[int, int] | None:
    """Returns the first span of a mention that is not used yet, or None.

    Whole words come first: "Ford" is the last word of "Stanford's Ford".
    """
    if not mention:
        return None
    spans = [match.span() for match in re.finditer(re.escape(mention), text)]
    whole = [
        (start, end)
        for start, end in spans
        if not (text[start - 1 : start].isalnum() or text[end : end + 1].isalnum())
    ]
    return next((span for span in whole + spans if span not in used), None)


def _from_elevant(line: _ElevantLine, key: str, refuse: Refuse) -> GoldDocument:
    found = []
    for label in line.labels:
        if label.parent is not None:
            refuse("child_label")
        elif not _is_span(label.span, line.text):
            refuse("bad_span")
        else:
            timed = any(kind in _OPTIONAL_TYPES for kind in (label.type, label.entity_id))
            entity = None if timed else _gold_id(label.entity_id)
            name = "" if entity is None else label.name
            found.append(GoldMention(*label.span, entity, name, label.optional or timed))
    evaluated = line.evaluation_span
    return GoldDocument(str(line.id) or key, line.text, tuple(found), evaluated=evaluated)


def _from_zelda(line: _ZeldaLine, key: str, refuse: Refuse) -> GoldDocument:
    spans, titles = line.index, line.wikipedia_titles
    if len(spans) != len(titles):
        refuse("unequal_lists")
        spans = titles = []
    found = []
    for span, title in zip(spans, titles, strict=True):
        if _is_span(span, line.text):
            found.append(GoldMention(*span, title or None, plain_title(title)))
        else:
            refuse("bad_span")
    return GoldDocument(str(line.id) or key, line.text, tuple(found))


def _from_oven(line: _OvenLine, key: str, refuse: Refuse) -> GoldDocument | None:
    entity = _gold_id(line.entity_id)
    if entity is None:
        refuse("no_gold_id")  # the test split is published without answers
        return None
    gold = GoldMention(0, 0, entity, line.entity_text)
    text = line.caption or line.question
    return GoldDocument(line.data_id or key, text, entity=gold, split=line.data_split)


_FORMATS: dict[Format, tuple[Any, Any]] = {
    "melbench": (_MelLine, _from_melbench),
    "elevant": (_ElevantLine, _from_elevant),
    "zelda": (_ZeldaLine, _from_zelda),
    "oven": (_OvenLine, _from_oven),
}


def _gold_id(text: str) -> str | None:
    return None if _NIL.fullmatch(text) else text


def _is_span(span: tuple[int, int], text: str) -> bool:
    return 0 <= span[0] < span[1] <= len(text)


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
