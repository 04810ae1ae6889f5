"""Which candidate a caption means: the prior of the name together with the caption's context.

    score = softmax over a mention's candidates of
            log p(entity | name) + context_weight * cos(text(caption), text("label: description"))

In: candidates, captions and any text encoder. Out: cosines and scores. Entity texts are encoded
when they first turn up, and kept.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from openmofi.link.candidates import Candidates

_ENCODE_BATCH = 256


class TextEncoder(Protocol):
    """Turns texts into vectors; `model.MofiModel` is one."""

    def encode_texts(self, texts: list[str], /) -> np.ndarray:
        """Returns float32 [n, dim]."""
        ...


class ContextScorer:
    """Cosines of captions with entities; remembers the vectors of entities."""

    def __init__(self, encoder: TextEncoder, entity_text: Callable[[np.ndarray], list[str]]):
        self._encoder, self._entity_text = encoder, entity_text
        self._known = np.zeros(0, np.int64)  # rows of entities, sorted
        self._slot = np.zeros(0, np.int64)  # of each known entity in `_vectors`
        self._vectors: np.ndarray | None = None

    def cosines(
        self, captions: Sequence[str], caption_of: np.ndarray, entity: np.ndarray
    ) -> np.ndarray:
        """Returns cos(text(captions[caption_of[i]]), text(entity[i])) for every i."""
        used, caption_slot = np.unique(caption_of, return_inverse=True)
        of_captions = self._encode([captions[row] for row in used.tolist()])
        self._learn(np.unique(entity))
        assert self._vectors is not None
        of_entities = self._vectors[self._slot[np.searchsorted(self._known, entity)]]
        return np.einsum("ij,ij->i", of_captions[caption_slot], of_entities)

    def _learn(self, entities: np.ndarray) -> None:
        """Encodes the texts of entities that are not known yet."""
        new = np.setdiff1d(entities, self._known, assume_unique=True)
        if not len(new):
            return
        vectors = self._encode(self._entity_text(new))
        old = vectors[:0] if self._vectors is None else self._vectors
        self._vectors = np.concatenate([old, vectors])
        known = np.concatenate([self._known, new])
        slots = np.concatenate([self._slot, len(old) + np.arange(len(new))])
        order = np.argsort(known)
        self._known, self._slot = known[order], slots[order]

    def _encode(self, texts: list[str]) -> np.ndarray:
        """Returns L2-normalised vectors."""
        batches = range(0, len(texts), _ENCODE_BATCH)
        vectors = [self._encoder.encode_texts(texts[at : at + _ENCODE_BATCH]) for at in batches]
        stacked = np.concatenate(vectors).astype(np.float32, copy=False)
        lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
        return stacked / np.maximum(lengths, np.finfo(np.float32).tiny)


def context_scores(
    candidates: Candidates, cosines: np.ndarray, context_weight: float
) -> np.ndarray:
    """Returns softmax(log prior + context_weight * cosine) over each mention's candidates."""
    logits = np.log(candidates.prior) + context_weight * cosines
    begin = np.flatnonzero(candidates.rank == 0)
    largest = np.maximum.reduceat(logits, begin)[candidates.mention]
    exponentials = np.exp(logits - largest)
    return exponentials / np.add.reduceat(exponentials, begin)[candidates.mention]


def rank_by_score(candidates: Candidates, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order that puts each mention's best candidate first, and the new ranks."""
    order = np.lexsort((candidates.rank, -scores, candidates.mention))
    # Mentions keep their places and sizes, so the ranks of the sorted rows are those from before.
    return order, candidates.rank
