"""The images of a block that are still in, and why the others are not: each for one reason.

A step refuses images, or labels of images. An image is refused with its last label, for the reason
of the step that refused it; it may lose one of several labels and be kept for another. Between the
passes a funnel lies on disk.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from openmofi.select.chosen_labels import ChosenLabels


class Funnel:
    """The state between the steps."""

    def __init__(self, labels: ChosenLabels, num_images: int):
        self.labels = labels
        """The labels of images that are still in."""
        self.reasons = [""]
        self.code = np.zeros(num_images, np.int16)
        """Per image: the index of its reason, 0 while it is in."""

    @classmethod
    def load(cls, path: Path) -> Funnel:
        """Reads what `save` wrote."""
        with np.load(path) as stored:
            labels = ChosenLabels(*(stored[field.name] for field in fields(ChosenLabels)))
            funnel = cls(labels, 0)
            funnel.code, funnel.reasons = stored["code"], stored["reasons"].tolist()
        return funnel

    def save(self, path: Path) -> None:
        """Writes the state."""
        np.savez(path, code=self.code, reasons=np.array(self.reasons), **vars(self.labels))

    def refuse_images(self, images: np.ndarray, reason: str) -> None:
        """Refuses images, by mask or by number, with all their labels.

        Images that were refused before keep their reason.
        """
        refused = np.zeros(len(self.code), bool)
        refused[images] = True
        refused &= self.code == 0
        if refused.any():
            self.code[refused] = self._code_of(reason)
            lost = refused[self.labels.image]
            if lost.any():
                self.labels = self.labels.take(~lost)

    def refuse_labels(self, labels: np.ndarray, reason: str) -> None:
        """Refuses labels, by mask, and the images that have no other label."""
        if not labels.any():
            return
        before = self.labels.image
        self.labels = self.labels.take(~labels)
        lost = np.zeros(len(self.code), bool)
        lost[before] = True
        lost[self.labels.image] = False
        if lost.any():
            self.code[lost] = self._code_of(reason)

    def drop_labels(self, labels: np.ndarray) -> None:
        """Drops labels, by mask, of images that keep better ones."""
        self.labels = self.labels.take(~labels)

    def _code_of(self, reason: str) -> int:
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def counts(self) -> dict[str, int]:
        """Returns the number of images refused for each reason."""
        counts = np.bincount(self.code, minlength=len(self.reasons)).tolist()
        return dict(zip(self.reasons[1:], counts[1:], strict=True))
