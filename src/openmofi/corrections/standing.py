"""All answers -> what they say together: the last word about each name of each pair, and rules.

Answers are taken in the order of their times. Of several about one thing the last counts, whoever
gave it; contradictions between people are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from openmofi.corrections.answers import OF_PAIRS, LabelAnswer
from openmofi.kb.text import canonical


class Place(NamedTuple):
    """A pair: it has this key, and this shard or this caption (if it has no key, this caption).

    So it is found again in other shards, or with another caption. Another shard's pair of the same
    key is taken for it only if it has the same caption, too.
    """

    key: str
    shard: str
    caption: str

    def fits(self, key: str, shard: str, caption: str) -> bool:
        """Returns whether a pair is this one."""
        if not self.key:
            return not key and caption == self.caption
        return key == self.key and (shard == self.shard or caption == self.caption)


@dataclass
class NameAnswer:
    """What is known of one name of one pair."""

    entity: str | None = None
    """What it means, and what is shown."""
    not_shown: bool = False
    """Nothing that it means is shown."""
    wrong: set[str] = field(default_factory=set)
    """Ids that are not what is shown."""

    def take(self, answer: LabelAnswer) -> None:
        """Takes a further answer."""
        if answer.kind in ("right", "is"):
            self.entity, self.not_shown = answer.entity, False
            self.wrong.discard(answer.entity)
        elif answer.kind == "not-shown":
            self.entity, self.not_shown = None, True
        elif answer.kind == "wrong":
            self.wrong.add(answer.entity)
            self.entity = None if self.entity == answer.entity else self.entity

    def contradicts(self, answer: LabelAnswer) -> bool:
        """Returns whether an answer says otherwise."""
        if answer.kind in ("right", "is"):
            differs = self.entity not in (None, answer.entity)
            return differs or self.not_shown or answer.entity in self.wrong
        if answer.kind == "not-shown":
            return self.entity is not None
        return self.entity == answer.entity


@dataclass(frozen=True)
class Standing:
    """What holds."""

    answers: tuple[LabelAnswer, ...] = ()
    """Those that nobody took back, by time."""
    names: dict[Place, dict[str, NameAnswer]] = field(default_factory=dict)
    """By pair, then by the canonical form of the name."""
    never: frozenset[tuple[str, str]] = frozenset()
    """(canonical name, id): the name never means that."""
    always: dict[str, str] = field(default_factory=dict)
    """Canonical name -> the only one of its entities that it means."""
    contradictions: int = 0
    """Answers that contradict an earlier one of somebody else."""

    def of_pair(self, key: str, shard: str, caption: str) -> dict[str, NameAnswer]:
        """Returns what holds of a pair's names, whichever way answers describe it."""
        found: dict[str, NameAnswer] = {}
        for answer in self._by_key.get(key, ()):
            if Place(answer.key, answer.shard, answer.caption).fits(key, shard, caption):
                found.setdefault(canonical(answer.name), NameAnswer()).take(answer)
        return found

    @cached_property
    def _by_key(self) -> dict[str, list[LabelAnswer]]:
        """Answers about pairs, by time."""
        found: dict[str, list[LabelAnswer]] = {}
        for answer in self.answers:
            if answer.kind in OF_PAIRS:
                found.setdefault(answer.key, []).append(answer)
        return found

    @cached_property
    def digest(self) -> str:
        """Identifies what holds, in whichever order it was written."""
        ids = "\n".join(sorted(answer.id for answer in self.answers))
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def __bool__(self) -> bool:
        return bool(self.answers)


def holding_ids(rows: Iterable[LabelAnswer]) -> set[str]:
    """Returns the ids of the rows that nobody took back, those that take others back included."""
    rows = sorted(rows, key=lambda answer: (answer.time, answer.id))
    undone = _undone(rows)
    return {row.id for row in rows if row.id not in undone}


def _undone(rows: Sequence[LabelAnswer]) -> set[str]:
    """Returns the ids of the rows that are taken back, given all rows by time."""
    undone: set[str] = set()
    for answer in reversed(rows):  # an undo may be undone itself, always by a later row
        if answer.kind == "undo" and answer.id not in undone:
            undone.add(answer.undoes)
    return undone


def standing_of(rows: Iterable[LabelAnswer]) -> Standing:
    """Returns what answers say together."""
    rows = sorted(rows, key=lambda answer: (answer.time, answer.id))
    undone = _undone(rows)
    kept = tuple(row for row in rows if row.id not in undone and row.kind != "undo")
    names: dict[Place, dict[str, NameAnswer]] = {}
    last: dict[tuple[Place, str], str] = {}
    never: set[tuple[str, str]] = set()
    always: dict[str, str] = {}
    contradictions = 0
    for answer in kept:
        name = canonical(answer.name)
        if answer.kind in OF_PAIRS:
            place = Place(answer.key, answer.shard, answer.caption)
            known = names.setdefault(place, {}).setdefault(name, NameAnswer())
            somebody = last.get((place, name), answer.by)
            contradictions += somebody != answer.by and known.contradicts(answer)
            known.take(answer)
            last[place, name] = answer.by
        elif answer.kind == "never":
            never.add((name, answer.entity))
            if always.get(name) == answer.entity:
                del always[name]
        else:
            always[name] = answer.entity
            never.discard((name, answer.entity))
    return Standing(kept, names, frozenset(never), always, contradictions)
