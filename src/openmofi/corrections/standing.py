"""All answers -> what they say together: the last word about each name of each pair, and rules.

Answers are taken in the order of their times. Of several about one thing the last counts, whoever
gave it; contradictions between people are counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from openmofi.corrections.answers import OF_PAIRS, LabelAnswer
from openmofi.kb.text import canonical


class Place(NamedTuple):
    """A pair: it has this key, and this shard or this caption (if it has no key, this caption).

    So it is found again in other shards, or with another caption, but not taken for another shard's
    pair of the same key.
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

    @cached_property
    def digest(self) -> str:
        """Identifies what holds, in whichever order it was written."""
        ids = "\n".join(sorted(answer.id for answer in self.answers))
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def __bool__(self) -> bool:
        return bool(self.answers)


def standing_of(rows: Iterable[LabelAnswer]) -> Standing:
    """Returns what answers say together."""
    rows = sorted(rows, key=lambda answer: (answer.time, answer.id))
    undone: set[str] = set()
    for answer in reversed(rows):  # an undo may be undone itself, always by a later row
        if answer.kind == "undo" and answer.id not in undone:
            undone.add(answer.undoes)
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
