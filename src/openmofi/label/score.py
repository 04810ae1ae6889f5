"""Joint scoring: what the text says of candidates and what the image says -> probabilities.

    score = softmax over a mention's candidates and NIL of  w_text log p(c | text) + w_z clip_z(c)

p(c | text) is the linker's: prior, context, coherence, type, case and linkability in one. `clip_z`
is the image-text cosine standardised by the entity's own background, its cosines with images
whose captions do not offer it. So no absolute threshold depends on the model, and an entity that
looks like everything is not favoured. Design: docs/labels.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.runs import run_starts
from openmofi.errors import InputError

MISMATCHED = 4
"""Images of other captions with which each mention is compared; docs/labels.md says why 4."""
LEAST_TEXT = 1e-6
"""Probability below which a text excludes no more: the image may overrule it."""


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of the joint score."""

    text: float
    """Of log p(c | text)."""
    clip_z: float
    """Of clip_z."""
    nil_z: float
    """The clip_z at which NIL ties with a candidate that the text is certain of."""


def load_weights(path: Path | str | None = None) -> ScoreWeights:
    """Returns the weights of a JSON file, which may be the card of a selection.

    Without a file, they are those that ship with the package.

    Raises:
        InputError: the file is missing or is not such a file.
    """
    source = Path(path) if path else files("openmofi.label") / "weights.json"
    names = [field.name for field in fields(ScoreWeights)]
    try:
        values = json.loads(source.read_text())
        values = values.get("weights") or values
        return ScoreWeights(**{name: float(values[name]) for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{str(path)!r} does not hold weights; expected JSON with {', '.join(names)}."
        ) from None


def joint_score(
    text_score: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    mention: Int[np.ndarray, " c"],
    weights: ScoreWeights,
) -> Float[np.ndarray, " c"]:
    """Returns each candidate's probability among its mention's candidates and NIL.

    Args:
        text_score: p(candidate | text), from the linker.
        clip_z: standardised cosine of image and entity text; NaN where it is not known gives
            NaN for the mention.
        mention: which mention each candidate belongs to, counted from 0, ascending.
        weights: of the terms.
    """
    if not len(mention):
        return np.zeros(0, dtype=np.float32)
    starts = run_starts(mention)
    logits = weights.text * np.log(np.maximum(text_score, LEAST_TEXT)) + weights.clip_z * clip_z
    nil = weights.clip_z * weights.nil_z
    peak = np.maximum(np.maximum.reduceat(logits, starts), nil)
    exponentials = np.exp(logits - peak[mention])
    total = np.add.reduceat(exponentials, starts) + np.exp(nil - peak)
    return (exponentials / total[mention]).astype(np.float32)
