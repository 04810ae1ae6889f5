"""Names of a dataset's classes -> prompts for zero-shot classification.

The first of these that is known: names given on the command line, the knowledge base's names and
descriptions, the dataset's own names, the label with spaces for underscores.
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
    """None if only names are known."""
    templates: tuple[str, ...] = ()
    """If empty, those of `zeroshot` are used."""
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
            data knows the name of any class.
    """
    own = tuple(images.class_names.get(label, label.replace("_", " ")) for label in classes)
    if given is not None:
        return _given(classes, own, given)
    names = "the data's names" if images.class_names else "the labels"
    source = f"{names} in {'its own' if images.templates else 'plain'} templates"
    plain = Prompts(own, None, images.templates, {"prompts": source})
    return plain if kb is None else _of_knowledge(classes, images, plain, kb)


def _given(classes: list[str], own: tuple[str, ...], given: str) -> Prompts:
    """Returns prompts with the names of a file or a benchmark.

    Some benchmarks have templates but no names; the data's own names then stay.
    """
    if Path(given).is_file():
        try:
            lines = [line.strip() for line in Path(given).read_text(encoding="utf-8").splitlines()]
        except UnicodeDecodeError:
            raise InputError(f"{given!r} is not UTF-8; save it again as UTF-8.") from None
        names, templates = tuple(line for line in lines if line), ()
    else:
        names, templates = benchmark_texts(given)
    notes = {"class_names": given}
    if not names:
        return Prompts(own, None, templates, notes)
    if len(names) != len(classes):
        raise InputError(
            f"{given!r} names {len(names):,} classes, but the data has {len(classes):,}; "
            "expected a name for each label in sorted order."
        )
    # Labels that are names themselves keep their own; others follow the order of the names.
    by_name = {_plain(name): name for name in names}
    known = [label for label in classes if _plain(label) in by_name]
    if known and len(known) < len(classes):
        lost = next(label for label in classes if label not in known)
        raise InputError(
            f"{len(known):,} of {len(classes):,} labels are names of {given!r}, but {lost!r} is "
            "not; expected all of them to be, or labels in the order of the names."
        )
    assigned = tuple(by_name[_plain(label)] for label in classes) if known else names
    return Prompts(assigned, None, templates, notes)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _of_knowledge(
    classes: list[str], images: LabelledImages, plain: Prompts, kb: KnowledgeBase
) -> Prompts:
    """Returns names and descriptions of the knowledge base; the data's own names take priority."""
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
    """Returns {label: id of its entity}, without the labels that have no entity.

    If the data does not name its classes, a label is an id, which the knowledge base (if given)
    must know. If it does, a label is the number of a class, even if it looks like an id: its
    entity is the only one with the class's name as its label or, among several, the one whose id
    is the label.
    """
    if not images.class_names:
        return {label: label for label in classes if kb is None or kb.row_of(label) is not None}
    if kb is None:
        return {}
    found = {}
    for label in classes:
        name = images.class_names[label]
        same = [c.id for c in kb.query(name) if _plain(c.label) == _plain(name)]
        if label in same:
            found[label] = label
        elif len(same) == 1:
            found[label] = same[0]
    return found
