"""Scores of a model on images from which its run never learns.

With entities: retrieval mAP, top-1 and kNN among the held-out images, and zero-shot accuracy by
the texts of their entities; retrieval among the images of entities that are held out whole. For raw
pairs: how often an image finds its own caption, and a caption its image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from openmofi.config import EvaluationSettings
from openmofi.evaluate.knn import knn
from openmofi.evaluate.metrics import hit_chances
from openmofi.evaluate.retrieval import retrieval
from openmofi.evaluate.zeroshot import class_vectors, zero_shot
from openmofi.model import MofiModel
from openmofi.train.data import DataParts
from openmofi.train.data_vectors import encode_data
from openmofi.train.distributed import World

_PREFIX = "heldout_"


class HeldOut:
    """The held-out images of a run."""

    def __init__(self, parts: DataParts, settings: EvaluationSettings, *, reads_texts: bool):
        most = np.arange(settings.max_images)
        self.data = parts.held_out.take(most[: len(parts.held_out)])
        self.unseen = parts.unseen.take(most[: len(parts.unseen)])
        self.reads_texts = reads_texts

    def __len__(self) -> int:
        return len(self.data) + len(self.unseen)

    def measure(self, model: MofiModel, world: World) -> dict[str, float]:
        """Returns the scores of a model; all processes share the work.

        Args:
            model: the model, with unsharded weights in every process.
            world: the processes.
        """
        scores: dict[str, float] = {}
        vectors, rows = encode_data(model, self.data, world)
        if len(rows) >= 2 and self.data.classes is not None:
            scores |= self._by_entity(model, vectors, rows)
        elif len(rows) >= 2:
            captions = self.data.records(rows, ["caption"])["caption"].to_pylist()
            scores |= recall_at_1(vectors, model.encode_texts(captions), captions)
        if len(self.unseen):
            vectors, rows = encode_data(model, self.unseen, world)
            found = retrieval(vectors, self.unseen.targets(rows)[:, 0])
            scores |= {f"unseen_{name}": value for name, value in found}
        return {_PREFIX + name: value for name, value in scores.items()}

    def _by_entity(
        self, model: MofiModel, vectors: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[str, float]]:
        targets = self.data.targets(rows)[:, 0]
        yield from chain(retrieval(vectors, targets), knn(vectors, targets))
        if self.reads_texts and self.data.vocabulary is not None:
            present, labels = np.unique(targets, return_inverse=True)
            texts = self.data.vocabulary.take(pa.array(present))
            names, descriptions = (texts[n].to_pylist() for n in ("label", "description"))
            scores = zero_shot(vectors, labels, class_vectors(model, names, descriptions))
            yield next(scores)  # top-1


def recall_at_1(
    images: np.ndarray, texts: np.ndarray, captions: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Yields recall@1 in both directions; another pair with the same caption also counts.

    Args:
        images: unit vectors, one per pair.
        texts: unit vectors, one per pair.
        captions: the texts.
    """
    _, codes = np.unique(np.array(captions, dtype=object), return_inverse=True)
    similarity, right = images @ texts.T, codes[:, None] == codes
    yield "image_to_text_r1", float(hit_chances(similarity, right, [1]).mean())
    yield "text_to_image_r1", float(hit_chances(similarity.T, right, [1]).mean())
