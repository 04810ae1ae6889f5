"""Tagging: images -> the entities they show, with their probability and evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from openmofi.errors import InputError, SettingsError
from openmofi.kb import KnowledgeBase
from openmofi.schema import TAG_CALIBRATION
from openmofi.search.index import Hit, Index
from openmofi.search.query import encode_image
from openmofi.tag.abstain import TagCalibration

if TYPE_CHECKING:
    from openmofi.model import MofiModel
    from openmofi.model.transform import ImageSource

_MOST_TEXTS = 200_000
"""Most entities that are encoded for a model without class rows; more take too long."""
_NUM_NEAREST = 3


@dataclass(frozen=True)
class Evidence:
    """Why an entity is named; None: unknown."""

    class_score: float | None
    """Cosine with the class row learnt in training."""
    text_score: float | None
    """Cosine with "label: description"; None if the encoder reads images alone."""
    prior: float | None
    """The entity's share of the total popularity of all entities that may be named."""
    nearest: tuple[Hit, ...]
    """The nearest images of the entity in an index."""


@dataclass(frozen=True)
class Tag:
    """One entity that an image may show."""

    id: str
    label: str
    description: str
    score: float
    """Cosine with the entity's class row, or with its text if the model was not trained on it."""
    probability: float | None
    """Probability that the image shows it, by the calibration; only for the best entity."""
    evidence: Evidence


@dataclass(frozen=True)
class Answer:
    """The answer for an image."""

    tags: tuple[Tag, ...]
    """The likeliest entities, best first, even if the answer abstains."""
    abstains: bool
    """Whether the best entity is too uncertain for the requested error rate."""
    reason: str
    """The reason, in a sentence."""


class Tagger:
    """The entities of a model or a knowledge base as vectors, which images are compared with."""

    def __init__(
        self,
        model: MofiModel | str | Path,
        kb: Path | str | KnowledgeBase,
        *,
        index: Index | Path | str | None = None,
        head: Path | str | None = None,
    ):
        """Reads the class rows, or encodes the entities' texts.

        Args:
            model: a run's model directory, whose class rows are used, or any dual encoder, with
                which the texts of the index's or all entities are encoded.
            kb: knowledge base with the entities' names.
            index: labelled images to show as evidence.
            head: directory of the model if `model` is already loaded.

        Raises:
            InputError: no entity is in the knowledge base, or there are too many.
        """
        from openmofi.model import load_model
        from openmofi.model.class_rows import FOLDER, load_head_rows

        self.kb = kb if isinstance(kb, KnowledgeBase) else KnowledgeBase.open(Path(kb))
        loads = isinstance(model, (str, Path))
        self.model = load_model(model, precision="auto") if loads else model
        self.index = Index.open(index) if isinstance(index, (str, Path)) else index
        folder = model if isinstance(model, (str, Path)) else head
        self.folder = Path(folder) if folder is not None else None
        self._text_vectors: dict[str, np.ndarray] = {}
        if self.folder is not None and (self.folder / FOLDER).is_dir():
            rows, self.ids = load_head_rows(self.folder / FOLDER)
            self.vectors, self.basis = rows.numpy(), "class row"
        else:
            self.ids = self._ids_to_encode()
            self.vectors, self.basis = self._texts_of(self.ids), "text"
        if not any(self.kb.row_of(entity) is not None for entity in self.ids):
            raise InputError("The model's entities are not in this knowledge base; pass another.")

    def tag(self, sources: Sequence[ImageSource], *, k: int = 5) -> list[list[Tag]]:
        """Returns the k likeliest entities of each image, best first.

        Raises:
            InputError: an image cannot be read.
        """
        vectors = np.concatenate([self.encode(source) for source in sources])
        return [list(answer.tags) for answer in self.answer(vectors, k=k)]

    def answer(
        self,
        vectors: Float[np.ndarray, "n dim"],
        *,
        k: int = 5,
        calibration: TagCalibration | None = None,
        error_rate: float | None = None,
        unknown: float = 0.0,
    ) -> list[Answer]:
        """Names what encoded images show, or abstains.

        Args:
            vectors: unit vectors of images.
            k: entities per image.
            calibration: relates scores to errors; provides the probabilities.
            error_rate: share of the answers that may be wrong; needs a calibration. None: never
                abstain.
            unknown: share of the images without an entity that the model knows.

        Raises:
            SettingsError: k or a share is out of bounds, or the calibration is missing.
        """
        if k < 1:
            raise SettingsError(f"k, the number of entities, cannot be {k}; expected at least 1.")
        threshold = -np.inf
        if error_rate is not None:
            if calibration is None:
                raise SettingsError(
                    "An error rate needs a calibration; make one with `openmofi tag calibrate`."
                )
            threshold = calibration.threshold(error_rate, unknown=unknown)
        similarity = vectors @ self.vectors.T
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(similarity, best, 1)
        sure = [None] * len(vectors)
        if calibration is not None:
            sure = calibration.probability(scores[:, 0], unknown=unknown).tolist()
        return [
            self._answer(vectors[i], best[i], scores[i], sure[i], threshold, error_rate)
            for i in range(len(vectors))
        ]

    def encode(self, source: ImageSource) -> Float[np.ndarray, "1 dim"]:
        """Returns the unit vector of an image.

        Raises:
            InputError: the image cannot be read.
        """
        return encode_image(self.model, source)

    def stored_calibration(self) -> TagCalibration | None:
        """Returns the calibration in the model's directory, or None."""
        if self.folder is None or not (self.folder / TAG_CALIBRATION).is_file():
            return None
        return TagCalibration.read(self.folder / TAG_CALIBRATION)

    def _ids_to_encode(self) -> list[str]:
        if self.index is not None:
            return self.index.entities["id"].to_pylist()
        if len(self.kb) > _MOST_TEXTS:
            raise InputError(
                f"The model has no class rows, and the knowledge base has {len(self.kb):,} "
                "entities to compare with; pass --index to use only its entities."
            )
        return self.kb.ids.to_pylist()

    def _texts_of(self, ids: Sequence[str]) -> Float[np.ndarray, "n dim"]:
        """Returns the vectors of entities' texts, each encoded once."""
        new = [entity for entity in dict.fromkeys(ids) if entity not in self._text_vectors]
        if new:
            rows = {entity: self.kb.row_of(entity) for entity in new}
            texts = [e if row is None else self.kb.entity_text([row])[0] for e, row in rows.items()]
            self._text_vectors |= zip(new, self.model.encode_texts(texts), strict=True)
        return np.stack([self._text_vectors[entity] for entity in ids])

    def _answer(
        self,
        vector: np.ndarray,
        best: np.ndarray,
        scores: np.ndarray,
        probability: float | None,
        threshold: float,
        error_rate: float | None,
    ) -> Answer:
        texts: list[float | None] = [None] * len(best)
        if self.model.reads_texts:
            texts = (self._texts_of([self.ids[entity] for entity in best]) @ vector).tolist()
        tags = tuple(
            self._tag(vector, int(entity), float(scores[i]), texts[i], None if i else probability)
            for i, entity in enumerate(best)
        )
        abstains = bool(scores[0] < threshold)
        if error_rate is None:
            return Answer(tags, False, "No error rate was requested.")
        if np.isinf(threshold):
            why = "no score is sure enough"
        else:
            why = f"the best scores {scores[0]:.3f}, {'below' if abstains else 'at least'} the "
            why += f"{threshold:.3f} needed"
        return Answer(tags, abstains, f"For an error rate of {error_rate:g}, {why}.")

    def _tag(
        self,
        vector: np.ndarray,
        entity: int,
        score: float,
        text_score: float | None,
        probability: float | None,
    ) -> Tag:
        identifier = self.ids[entity]
        row = self.kb.row_of(identifier)
        label = description = ""
        if row is not None:
            label = self.kb.texts.label[row].as_py()
            description = self.kb.texts.description[row].as_py()
        evidence = Evidence(
            class_score=score if self.basis == "class row" else None,
            text_score=text_score,
            prior=self._priors.get(identifier),
            nearest=() if self.index is None else self._nearest(vector, identifier),
        )
        return Tag(identifier, label, description, score, probability, evidence)

    def _nearest(self, vector: np.ndarray, entity: str) -> tuple[Hit, ...]:
        assert self.index is not None
        passing = np.zeros(self.index.num_rows, bool)
        passing[self.index.rows_of(entity)] = True
        rows, scores, _ = self.index.nearest(vector, k=_NUM_NEAREST, passing=passing)
        return tuple(self.index.hits(rows, scores))

    @cached_property
    def _priors(self) -> dict[str, float]:
        """Popularity of each entity that may be named, as a share of their total."""
        rows = {entity: self.kb.row_of(entity) for entity in self.ids}
        popularity = self.kb.entities(["prior"])["prior"].to_numpy()
        found = {entity: float(popularity[row]) for entity, row in rows.items() if row is not None}
        total = sum(found.values())
        return {entity: value / total for entity, value in found.items()}


def tag(
    model: MofiModel | str | Path, images: Sequence[ImageSource], *, kb: Path | str, k: int = 5
) -> list[list[Tag]]:
    """Names what images show.

    Args:
        model: a run's model directory, whose class rows are used, or any dual encoder, with which
            the entities' texts are encoded.
        images: paths, bytes, arrays or PIL images.
        kb: knowledge base with the entities' names.
        k: entities per image.
    """
    return Tagger(model, kb).tag(images, k=k)
