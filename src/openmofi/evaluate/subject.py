"""One dataset and one model: what the benchmarks ask of them, each result computed once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from openmofi.embed import Places
from openmofi.errors import InputError
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.metrics import nearest
from openmofi.evaluate.prompts import Prompts, class_prompts
from openmofi.evaluate.revisited import RevisitedImages
from openmofi.evaluate.vectors import Encoded, ModelVectors, Vectors
from openmofi.kb import KnowledgeBase


@dataclass(frozen=True)
class Wanted:
    """What to measure, and how the classes are named."""

    benchmarks: frozenset[str]
    kb: KnowledgeBase | None = None
    class_names: str | None = None
    if_possible: bool = False
    """Skip a benchmark that the data does not allow, instead of refusing the data."""


class Subject:
    """A dataset and the source of its vectors; anything costly is computed on first use.

    Attributes:
        dataset: one of `layouts.Dataset`; each benchmark lists the layouts that it measures.
        counts_all: whether unusable images are an error, because the protocol counts every image.
        notes: what a reader needs to repeat the numbers.
        predicted: class with the nearest text for each image, once `texts` has been used.
        queries: vectors that are not in `encoded`: of a benchmark's queries, or of captions.
    """

    def __init__(
        self, source: Vectors, name: str, dataset: Any, wanted: Wanted, *, counts_all: bool = False
    ):
        self.source, self.name, self.dataset, self.wanted = source, name, dataset, wanted
        self.counts_all = counts_all
        self.notes: dict[str, Any] = {}
        self.predicted: np.ndarray | None = None
        self.queries: np.ndarray | None = None

    @property
    def model(self) -> ModelVectors:
        """The source, for benchmarks that need a model."""
        assert isinstance(self.source, ModelVectors), "see measure.check_possible"
        return self.source

    def images(self, places: Places, what: str = "", *, alone: bool = True) -> Encoded:
        """Returns the vectors of images; images lost with their shards count as refused."""
        encoded = self.source.images(places, f"{self.name} {what}".rstrip(), alone=alone)
        refused = dict(Counter(places.refused) + Counter(encoded.refused))
        if refused and self.counts_all:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in refused.items())
            raise InputError(
                f"{sum(refused.values()):,} images of {self.name!r} cannot be used ({reasons}), "
                "but its protocol counts every one; fix them."
            )
        return replace(encoded, refused=refused)

    @cached_property
    def encoded(self) -> Encoded:
        """The images that can be read."""
        dataset = self.dataset
        alone = not isinstance(dataset, LabelledImages) or dataset.gallery is None
        what = "gallery" if isinstance(dataset, RevisitedImages) else ""
        encoded = self.images(dataset.places, what, alone=alone)
        if len(encoded.rows) < 2:
            raise InputError(f"Fewer than two images of {self.name!r} can be read.")
        return encoded

    @property
    def vectors(self) -> np.ndarray:
        """Vectors of the images that can be read."""
        return self.encoded.vectors

    @cached_property
    def labels(self) -> np.ndarray:
        """Class of each of them."""
        return self.dataset.codes(self.dataset.classes)[self.encoded.rows]

    @cached_property
    def gallery(self) -> tuple[np.ndarray, ...]:
        """(Vectors, classes) of the training images; empty without training images."""
        gallery = self.dataset.gallery
        if gallery is None:
            return ()
        encoded = self.images(gallery.places, "gallery", alone=False)
        if not len(encoded.rows):
            raise InputError(f"None of the training images of {self.name!r} can be read.")
        self.notes["gallery"] = len(encoded.rows)
        if encoded.refused:
            self.notes["gallery_refused"] = encoded.refused
        return encoded.vectors, gallery.codes(self.dataset.classes)[encoded.rows]

    @cached_property
    def prompts(self) -> Prompts:
        """What the classes are called."""
        dataset, wanted = self.dataset, self.wanted
        return class_prompts(dataset.classes, dataset, wanted.kb, wanted.class_names)

    @cached_property
    def texts(self) -> np.ndarray:
        """One vector per class, from its texts."""
        texts = self.prompts.vectors(self.model.model)
        self.predicted = nearest(self.vectors, texts, 1, same=False)[0][:, 0]
        self.notes |= self.prompts.notes
        return texts
