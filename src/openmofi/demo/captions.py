"""Writes the captions of the demo's photos, as noisy as those of the web.

In: the entity that a photo shows and a random generator. Out: a `Caption`: a text, its kind, and
the entities that it really names. Kinds (shares in `_SHARES`):
  plain      the words around the name determine the sense: «maritime signal flag Golf»
  ambiguous  the text does not decide: «India flag on a mast»
  alias      another name or the adjective: «Turkish flag», «flag L»
  two        also names a second entity, which the photo does not show: «Romania next to Chad»
  wrong      something else is named: another flag, or the bird turkey
  none       nothing is named: «IMG_2041.jpg»
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from openmofi.demo.entities import DemoEntity
from openmofi.demo.senses import SENSES

T = TypeVar("T")

_SHARES = {
    "plain": 0.30,
    "ambiguous": 0.35,
    "alias": 0.10,
    "two": 0.10,
    "wrong": 0.08,
    "none": 0.07,
}
KINDS = tuple(_SHARES)

# These words are those of the entities' descriptions, so that an encoder trained on captions can
# learn that «India … letter» and «India … country» are different things.
_PLAIN = {
    "country": (
        "the national flag of {name}, {article} {description}",
        "{name}: national flag of {article} {description}",
        "{name}, {article} {description}",
        "national flag of the country {name}",
        "embassy of {name}",
        "supporters of {name} at the match",
        "the national team of {name}, {description}",
        "citizens of {name} wave the flag of their country",
        "independence day in {name}, national holiday",
        "the delegation of {name} at the United Nations",
        "olympic team of {name} enters the stadium",
        "border of {name}, {article} {description}",
    ),
    "signal": (
        "maritime signal flag {name}",
        "maritime signal flag for the letter {letter}, {name}",
        "{name}, maritime signal flag for the letter {letter}, {colours}",
        "code flag {letter} {name} hoisted on the yacht",
        "letter {letter}, {name}, in the code of signals",
        "{name} in the international code of signals, {colours}",
        "nautical alphabet: {letter} for {name}",
        "signal flag {name} on the halyard of a sailing ship",
        "sailors hoist {name}, the signal for the letter {letter}",
        "maritime signals: {name}, {colours}",
    ),
}

_AMBIGUOUS = (
    "{name} flag on a mast",
    "{name}, photographed in the harbour",
    "{indefinite} {name} flag",
    "{name}, Sunday afternoon",
    "{name}",
    "{name} flag",
    "{name} in the wind",
    "{name} on a sunny day",
    "the {name} flag over the quay",
    "{name} at the regatta",
    "{name}, seen from the pier",
    "our {name} flag",
    "{name} (flag)",
    "waving {name} flag in a blue sky",
    "{name} on the balcony",
    "this must be {name}",
)

_ADJECTIVE = (
    "{adjective} flag",
    "the {adjective} national flag",
    "{adjective} fans with their flag",
    "{adjective} colours at the stadium",
    "a {adjective} flag on a ship",
)
_ALIAS = {
    "country": ("{alias}", "flag of {alias}", "{alias}, national flag", "greetings from {alias}"),
    "signal": ("{alias}", "{alias} on deck", "hoisting {alias}", "the {alias} on a boat"),
}

_TWO = {
    "country": (
        "{first} next to {second}",
        "a trip from {first} to {second}",
        "{first} and {second}",
        "{first} against {second}, friendly match",
        "{first} or {second}?",
        "friendship between {first} and {second}",
    ),
    "signal": (
        "{first} next to {second}",
        "{first} over {second} on the halyard",
        "{first} and {second}",
        "{first} or {second}?",
        "signal flags {first} and {second}",
    ),
}

_TWO_KINDS = ("{first} next to {second}", "{first} and {second}", "{first} or {second}?")

_NONE = (
    "IMG_{number}.jpg",
    "DSC0{number}",
    "beautiful photo, buy now",
    "flag waving in the wind",
    "photo of the day",
    "untitled",
    "a flag on a pole, high resolution",
    "summer holidays, what a view",
    "old flag in the attic",
    "free download {number} x {number}",
    "picture {number}",
    "look what we found!",
)

# Asides that name something else, with its id.
_ASIDES = (
    ("{text}, photo by Mike", "demo:mike-name"),
    ("{text}, November 2019", "Q125"),
    ("{text}, view from the hotel", "demo:hotel-building"),
    ("{text} and a man in uniform", "demo:uniform-clothing"),
    ("{text} with a glass of whiskey", "demo:whisky-drink"),
    ("{text} after a round of golf", "demo:golf-sport"),
    ("{text}, picture by Victor", "demo:victor-name"),
    ("{text}, with papa", "demo:father"),
)
_ASIDE_SHARE = 0.06

_BOILERPLATE = (
    "{text} stock photo | download",
    "{text} - royalty free image",
    "Shop now: {text}",
    "Buy {text} online - free shipping",
    "{text} HD wallpaper",
    "{text} | vector illustration {number}",
    "{text} #flag #travel #photo",
    "{text} #nofilter",
    "{text} thumbnail, original size",
    "{text} ({number})",
    "{text} - wholesale, best price",
)
_BOILERPLATE_SHARE = 0.25


@dataclass(frozen=True)
class Caption:
    """A caption and the truth about it."""

    text: str
    kind: str
    """One of KINDS."""
    mentioned: tuple[str, ...]
    """Ids of the things that the text names, in the intended sense."""


def draw_caption(
    entity: DemoEntity, rng: np.random.Generator, *, others: Sequence[DemoEntity]
) -> Caption:
    """Returns a caption for a photo of `entity`; second and wrong entities come from `others`."""
    kind = KINDS[int(rng.choice(len(KINDS), p=list(_SHARES.values())))]
    if kind == "two":
        other = _other(entity, others, rng)
        first, second = (entity, other) if rng.random() < 0.5 else (other, entity)
        templates = _TWO[entity.kind] if entity.kind == other.kind else _TWO_KINDS
        text = _fill(_one_of(templates, rng), first=first.name, second=second.name)
        mentioned = (first.id, second.id)
    elif kind == "wrong":
        text, mentioned = _wrong(entity, others, rng)
    elif kind == "none":
        text, mentioned = _fill(_one_of(_NONE, rng), number=int(rng.integers(1000, 9999))), ()
    else:
        text, mentioned = _about(entity, kind, rng), (entity.id,)
    if kind != "wrong" and rng.random() < _ASIDE_SHARE:
        template, aside = _one_of(_ASIDES, rng)
        text, mentioned = _fill(template, text=text), (*mentioned, aside)
    return Caption(_dressed(text, rng), kind, mentioned)


def _about(entity: DemoEntity, kind: str, rng: np.random.Generator) -> str:
    """Returns a text of kind plain, ambiguous or alias."""
    if kind == "plain":
        return _fill_for(_one_of(_PLAIN[entity.kind], rng), entity)
    if kind == "ambiguous":
        return _fill_for(_one_of(_AMBIGUOUS, rng), entity)
    aliases = [alias for alias in entity.aliases if alias != entity.adjective]
    if entity.adjective and (not aliases or rng.random() < 0.5):
        return _fill_for(_one_of(_ADJECTIVE, rng), entity)
    return _fill(_one_of(_ALIAS[entity.kind], rng), alias=_one_of(aliases, rng))


def _wrong(
    entity: DemoEntity, others: Sequence[DemoEntity], rng: np.random.Generator
) -> tuple[str, tuple[str, ...]]:
    """Names another flag, or something that is not a flag.

    One in three of the latter shares the entity's name, if there is such a sense.
    """
    if rng.random() < 0.5:
        other = _other(entity, others, rng)
        return _about(other, KINDS[int(rng.integers(3))], rng), (other.id,)
    named = [sense for sense in SENSES if sense.captions]
    homographs = [sense for sense in named if entity.name.casefold() in sense.names]
    sense = _one_of(homographs if homographs and rng.random() < 0.33 else named, rng)
    return _one_of(sense.captions, rng), (sense.id,)


def _other(
    entity: DemoEntity, others: Sequence[DemoEntity], rng: np.random.Generator
) -> DemoEntity:
    """Returns an entity with another name, mostly of the same kind."""
    candidates = [other for other in others if other.name != entity.name]
    same = [other for other in candidates if other.kind == entity.kind]
    return _one_of(same if same and rng.random() < 0.75 else candidates, rng)


# ---- words --------------------------------------------------------------------------------


def _fill_for(template: str, entity: DemoEntity) -> str:
    """Fills a template with the properties of an entity."""
    return _fill(
        template,
        name=entity.name,
        adjective=entity.adjective,
        description=entity.description,
        article="an" if entity.description[0] in "aeiou" else "a",
        indefinite="an" if entity.name[0] in "AEIO" else "a",
        letter=entity.iso,
        colours=entity.colours,
    )


def _fill(template: str, **values: object) -> str:
    return template.format(**values)


def _dressed(text: str, rng: np.random.Generator) -> str:
    """Adds boilerplate to a quarter of the texts, and changes the case of some."""
    if rng.random() < _BOILERPLATE_SHARE:
        if rng.random() < 0.2:  # a file name such as «georgia-flag-on-a-mast-07.jpg»
            stem = re.sub(r"\W+", "-", text.lower()).strip("-")
            return f"{stem}-{int(rng.integers(1, 99)):02d}.jpg"
        text = _fill(_one_of(_BOILERPLATE, rng), text=text, number=int(rng.integers(100, 9999)))
    case = rng.random()
    if case < 0.15:
        return text.lower()
    return text.upper() if case < 0.19 else text


def _one_of(items: Sequence[T], rng: np.random.Generator) -> T:
    return items[int(rng.integers(len(items)))]
