"""What the classes of a dataset are called -> prompts for zero-shot classification.

In order: names given on the command line, the knowledge base's names and descriptions, what the
dataset says itself, else the label with its underscores as spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
        InputError: the given names are not as many as the classes, or the knowledge base knows
            none of them.
    """
    if given is not None:
        names, templates = _given(given)
        if len(names) != len(classes):
            raise InputError(
                f"{given!r} names {len(names):,} classes, but the data has {len(classes):,}; "
                "expected a name for each label in sorted order."
            )
        return Prompts(tuple(names), None, tuple(templates), {"class_names": given})
    if kb is not None:
        return _of_knowledge(classes, kb)
    names = tuple(images.class_names.get(label, label.replace("_", " ")) for label in classes)
    return Prompts(names, None, images.templates)


def _given(name: str) -> tuple[Sequence[str], Sequence[str]]:
    path = Path(name)
    if path.is_file():
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line], []
    return benchmark_texts(name)


def _of_knowledge(classes: list[str], kb: KnowledgeBase) -> Prompts:
    """Returns names and descriptions; a label that the KB does not know is its own name."""
    names, descriptions, unknown = [], [], 0
    for label in classes:
        row = kb.row_of(label)
        unknown += row is None
        names.append(label.replace("_", " ") if row is None else kb.texts.label[row].as_py())
        descriptions.append("" if row is None else kb.texts.description[row].as_py())
    if unknown == len(classes):
        raise InputError(
            f"The knowledge base knows none of the {unknown:,} labels, such as {classes[0]!r}; "
            "expected labels that are its ids."
        )
    notes = {"labels_not_in_kb": unknown} if unknown else {}
    return Prompts(tuple(names), tuple(descriptions), (), notes)
