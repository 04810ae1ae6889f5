"""Joint scoring: candidates and pictures -> every term of the score, per candidate.

    score = w . [log prior, context, clip_z], softmax over a mention's candidates and NIL

`clip_z` is the image-text cosine standardised by the entity's own background, its cosines with
pictures whose captions do not offer it. So no absolute threshold depends on the model, and an
entity that looks like everything is not favoured. Design: docs/labels.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from openmofi.errors import InputError

_FEW = 8


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of the joint score; `nil_z` is the clip_z at which NIL ties with no other term."""

    log_prior: float
    context: float
    clip_z: float
    nil_z: float


def load_weights(path: Path | str | None = None) -> ScoreWeights:
    """Returns the weights of a JSON file; without one, those that ship with the package.

    Raises:
        InputError: the file is missing or is not such a file.
    """
    source = Path(path) if path else files("openmofi.label") / "weights.json"
    names = [field.name for field in fields(ScoreWeights)]
    try:
        values = json.loads(source.read_text())
        return ScoreWeights(**{name: float(values[name]) for name in names})
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{str(path)!r} does not hold weights; expected JSON with {', '.join(names)}."
        ) from None


@dataclass(frozen=True)
class Background:
    """Pictures of other captions, to tell how an entity looks to the encoder by chance."""

    images: Float[np.ndarray, "n dim"]
    offered: tuple[frozenset[str], ...]
    """Per picture: the entities that its caption offers, which are not background to it."""

    def moments(self, texts: Float[np.ndarray, "e dim"], ids: Sequence[str]) -> np.ndarray:
        """Returns [e, 2]: mean and standard deviation of each entity's background cosine."""
        cosines = texts @ self.images.T
        mine = self._not_offering(ids)
        # With hardly any background left (few entities, few pictures), all of it is better.
        mine[mine.sum(1) < _FEW] = True
        count = mine.sum(1)
        mean = (cosines * mine).sum(1) / count
        variance = (np.square(cosines - mean[:, None]) * mine).sum(1) / count
        return np.stack([mean, np.sqrt(variance) + 1e-6], axis=1)

    def _not_offering(self, ids: Sequence[str]) -> Bool[np.ndarray, "e n"]:
        column = {entity: i for i, entity in enumerate(ids)}
        mine = np.ones((len(ids), len(self.offered)), dtype=bool)
        for picture, offered in enumerate(self.offered):
            rows = [column[entity] for entity in offered if entity in column]
            mine[rows, picture] = False
        return mine


def joint_score(
    log_prior: Float[np.ndarray, " c"],
    context: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    mention: Int[np.ndarray, " c"],
    weights: ScoreWeights,
) -> Float[np.ndarray, " c"]:
    """Returns each candidate's probability among its mention's candidates and NIL.

    Args:
        log_prior: log p(entity | mention).
        context: cosine of caption and entity text.
        clip_z: standardised cosine of picture and entity text.
        mention: which mention each candidate belongs to, counted from 0, ascending.
        weights: of the terms.
    """
    if not len(mention):
        return np.zeros(0, dtype=np.float32)
    evidence = weights.context * context + weights.log_prior * log_prior
    # Context counts only in comparison: its level differs between encoders.
    starts = np.flatnonzero(np.r_[True, mention[1:] != mention[:-1]])
    best_text = np.maximum.reduceat(evidence, starts)
    logits = evidence - best_text[mention] + weights.clip_z * clip_z
    nil = weights.clip_z * weights.nil_z
    peak = np.maximum(np.maximum.reduceat(logits, starts), nil)
    exponentials = np.exp(logits - peak[mention])
    total = np.add.reduceat(exponentials, starts) + np.exp(nil - peak)
    return (exponentials / total[mention]).astype(np.float32)
