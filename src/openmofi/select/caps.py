"""Labels of entities that have too many -> which of them are kept: entity_has_enough.

The images to keep are drawn uniformly by their bytes, so that the result is reproducible and does
not depend on the order. What is kept of an entity is all up to a last one, its cut; cuts are found
part by part, each with some of the entities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.arrays.runs import run_lengths, run_starts
from openmofi.select.blocks import Block, LabelBlocks, Numbered, run_pass
from openmofi.select.chosen_labels import Images
from openmofi.select.funnel import Funnel
from openmofi.select.scattered import Scattered, part_of

_DRAWN = np.dtype([("entity", "i4"), ("draw", "u8"), ("tie", "u8"), ("image", "i8")])


class Caps:
    """Collects the labels of entities that have too many, and finds the cut of each."""

    def __init__(self, folder: Path, labels: LabelBlocks, counts: np.ndarray, max_images: int):
        """Begins without labels.

        Args:
            folder: the folder to create.
            labels: all labels.
            counts: images of every entity.
            max_images: labels kept per entity.
        """
        self._max, self._crowded, self._budget = max_images, counts > max_images, labels.budget
        num_bytes = int(counts[self._crowded].sum()) * _DRAWN.itemsize
        self._drawn = Scattered(folder, labels.budget.num_parts(num_bytes), _DRAWN)
        self._cuts = np.zeros(0, _DRAWN)

    def add(self, funnel: Funnel, images: Images, block: Block) -> None:
        """Adds a block's labels."""
        mine = self._of_crowded(funnel, images, block)
        self._drawn.add(part_of(mine["entity"], self._drawn.num_parts), mine)

    def cut(self) -> None:
        """Finds the cuts, after everything was added."""
        found = [np.zeros(0, _DRAWN)]
        found += run_pass(
            self._drawn.parts, self._cuts_of, "limit entities", threads=self._budget.threads
        )
        self._cuts = np.concatenate(found)
        self._cuts = self._cuts[np.argsort(self._cuts["entity"])]

    def _cuts_of(self, part: Numbered) -> np.ndarray:
        drawn = self._drawn.read(part.number)
        drawn = drawn[_order(drawn)]
        starts = run_starts(drawn["entity"])
        crowded = run_lengths(starts, len(drawn)) > self._max
        return drawn[starts[crowded] + self._max - 1]

    def refuse(self, funnel: Funnel, images: Images, block: Block) -> None:
        """Refuses a block's labels that come after their entity's cut."""
        mine = self._of_crowded(funnel, images, block)
        cuts = self._cuts[np.searchsorted(self._cuts["entity"], mine["entity"])]
        beyond = np.zeros(len(funnel.labels), bool)
        beyond[self._crowded[funnel.labels.entity]] = _is_after(mine, cuts)
        funnel.refuse_labels(beyond, "entity_has_enough")

    def _of_crowded(self, funnel: Funnel, images: Images, block: Block) -> np.ndarray:
        labels = funnel.labels
        crowded = self._crowded[labels.entity]
        image = labels.image[crowded]
        found = np.empty(len(image), _DRAWN)
        found["entity"], found["image"] = labels.entity[crowded], image + block.begin
        found["draw"] = mix_words(random_key(0, Purpose.CAP), images.digest[image, 0])
        found["tie"] = images.tie[image]
        return found


def _order(drawn: np.ndarray) -> np.ndarray:
    return np.lexsort([drawn[name] for name in ("image", "tie", "draw", "entity")])


def _is_after(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compares labels of the same entity by draw, then by tie, then by image."""
    after = one["image"] > other["image"]
    for name in ("tie", "draw"):
        after = np.where(one[name] == other[name], after, one[name] > other[name])
    return after
