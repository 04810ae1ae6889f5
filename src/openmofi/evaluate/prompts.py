"""What the classes of a dataset are called -> prompts for zero-shot classification.

In order: names given on the command line, the knowledge base's names and descriptions, what the
dataset says itself, else the label with its underscores as spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.zeroshot import benchmark_texts, class_vectors
from openmofi.kb import KnowledgeBase
from openmofi.model import MofiModel


@dataclass(frozen=True)
class Prompts:
    """Names, descriptions and templates of the classes."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...] | None
    """None: names alone are known."""
    templates: tuple[str, ...] = ()
    """Empty: those of `zeroshot`."""
    notes: dict[str, Any] = field(default_factory=dict)

    def vectors(self, model: MofiModel) -> np.ndarray:
        """Returns a unit vector per class."""
        return class_vectors(model, self.names, self.descriptions, self.templates or None)


def class_prompts(
    classes: list[str], images: LabelledImages, kb: KnowledgeBase | None, given: str | None
) -> Prompts:
    """Returns the prompts of a dataset's classes.

    Raises:
        InputError: the given names do not fit the classes, or neither the knowledge base nor the
            data knows what any of them is called.
    """
    if given is not None:
        return _given(classes, images, given)
    names = tuple(images.class_names.get(label, label.replace("_", " ")) for label in classes)
    plain = Prompts(names, None, images.templates, {"prompts": _said(images)})
    return plain if kb is None else _of_knowledge(classes, images, plain, kb)


def _said(images: LabelledImages) -> str:
    names = "the data's names" if images.class_names else "the labels"
    return f"{names} in {'its own' if images.templates else 'plain'} templates"


def _given(classes: list[str], images: LabelledImages, given: str) -> Prompts:
    """Returns prompts by a benchmark's or a file's names; benchmarks may give templates alone."""
    names, templates = _read_names(Path(given)) if Path(given).is_file() else benchmark_texts(given)
    notes = {"class_names": given}
    if not names:
        own = tuple(images.class_names.get(label, label.replace("_", " ")) for label in classes)
        return Prompts(own, None, tuple(templates), notes)
    if len(names) != len(classes):
        raise InputError(
            f"{given!r} names {len(names):,} classes, but the data has {len(classes):,}; "
            "expected a name for each label in sorted order."
        )
    return Prompts(_assigned(classes, names, given), None, tuple(templates), notes)


def _assigned(classes: list[str], names: Sequence[str], given: str) -> tuple[str, ...]:
    """Returns the name of each class: by its own, where labels are names, else in sorted order."""
    by_name = {_plain(name): name for name in names}
    known = [label for label in classes if _plain(label) in by_name]
    if not known:
        return tuple(names)
    if len(known) < len(classes):
        lost = next(label for label in classes if label not in known)
        raise InputError(
            f"{len(known):,} of {len(classes):,} labels are names of {given!r}, but {lost!r} is "
            "none; expected all, or labels that only follow the order of the names."
        )
    return tuple(by_name[_plain(label)] for label in classes)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _read_names(path: Path) -> tuple[Sequence[str], Sequence[str]]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{str(path)!r} is not UTF-8; save it again as UTF-8.") from None
    return [line for line in lines if line], ()


def _of_knowledge(
    classes: list[str], images: LabelledImages, plain: Prompts, kb: KnowledgeBase
) -> Prompts:
    """Returns names and descriptions; the data's own names, where it has some, stay."""
    entities = entity_ids(classes, images, kb)
    unknown = len(classes) - len(entities)
    if not entities and not images.class_names:
        raise InputError(
            f"The knowledge base knows none of the {unknown:,} labels, such as {classes[0]!r}; "
            "expected labels that are its ids."
        )
    if not entities:
        return replace(plain, notes=plain.notes | {"labels_not_in_kb": unknown})
    names, descriptions = [], []
    for label, name in zip(classes, plain.names, strict=True):
        row = kb.row_of(entities[label]) if label in entities else None
        own = row is None or images.class_names
        names.append(name if own else kb.texts.label[row].as_py())
        descriptions.append("" if row is None else kb.texts.description[row].as_py())
    whose = "the data's names, matched with" if images.class_names else "the knowledge base's names"
    told = "the knowledge base's descriptions" if images.class_names else "and descriptions"
    notes: dict[str, Any] = {"prompts": f"{whose} {told}"}
    if unknown:
        notes["labels_not_in_kb"] = unknown
    return Prompts(tuple(names), tuple(descriptions), images.templates, notes)


def entity_ids(
    classes: Sequence[str], images: LabelledImages, kb: KnowledgeBase | None
) -> dict[str, str]:
    """Returns {label: id of its entity}, without the labels that have none.

    Where the data names its classes, its labels are numbers of them, though ids of a catalogue may
    look alike: the entity is the one of that name, if only one has it. Otherwise a label is an id;
    without a knowledge base, nobody knows better.
    """
    if not images.class_names:
        return {label: label for label in classes if kb is None or kb.row_of(label) is not None}
    if kb is None:
        return {}
    found = {label: _entity_named(images.class_names[label], label, kb) for label in classes}
    return {label: entity for label, entity in found.items() if entity is not None}


def _entity_named(name: str, label: str, kb: KnowledgeBase) -> str | None:
    """Returns the only entity with the name as its label; of several the one whose id is given."""
    same = [c.id for c in kb.query(name) if _plain(c.label) == _plain(name)]
    return label if label in same else same[0] if len(same) == 1 else None
