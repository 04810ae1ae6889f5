"""Joint scoring: the evidence of text and image about candidates -> probabilities.

    score = softmax over a mention's candidates and NIL of  w_text log p(c | text) + w_z clip_z(c)

p(c | text) is the linker's: prior, context, coherence, type, case and linkability in one. `clip_z`
is the image-text cosine standardised by the entity's own background: its cosines with images
whose captions do not have it as a candidate. No threshold therefore depends on the model's scale,
and an entity that matches every image is not favoured. Design: docs/labels.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.runs import begins_run, repeat_runs, run_starts
from openmofi.errors import InputError

MISMATCHED = 4
"""Images with other captions that each mention is compared with; docs/labels.md says why 4."""
LEAST_TEXT = 1e-6
"""Floor of the text's probability, so that the image may overrule any text."""


@dataclass(frozen=True)
class ScoreWeights:
    """Weights of the joint score."""

    text: float
    """Weight of log p(c | text)."""
    clip_z: float
    """Weight of clip_z."""
    nil_z: float
    """The clip_z at which NIL ties with a candidate of text probability 1."""


def load_weights(path: Path | str | None = None) -> ScoreWeights:
    """Returns the weights in a JSON file, such as a selection's card.

    Without a file, returns the weights that ship with the package.

    Raises:
        InputError: the file is missing or does not hold weights.
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
    shift: Float[np.ndarray, " c"] | None = None,
) -> Float[np.ndarray, " c"]:
    """Returns each candidate's probability among its mention's candidates and NIL.

    Args:
        text_score: p(candidate | text), from the linker.
        clip_z: standardised cosine of image and entity text; a NaN makes the whole mention NaN.
        mention: the number of each candidate's mention, from 0, ascending.
        weights: weights of the terms.
        shift: log odds to add to each.
    """
    if not len(mention):
        return np.zeros(0, dtype=np.float32)
    starts = run_starts(mention)
    logits = weights.text * np.log(np.maximum(text_score, LEAST_TEXT)) + weights.clip_z * clip_z
    logits = logits if shift is None else logits + shift
    nil = weights.clip_z * weights.nil_z
    peak = np.maximum(np.maximum.reduceat(logits, starts), nil)
    exponentials = np.exp(logits - peak[mention])
    total = np.add.reduceat(exponentials, starts) + np.exp(nil - peak)
    return (exponentials / total[mention]).astype(np.float32)


def log_odds(
    log_text: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    begins: Int[np.ndarray, " m"],
    weights: ScoreWeights,
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Returns each mention's best candidate, its log odds against NIL, and those of the others.

    Args:
        log_text: log p(candidate | text).
        clip_z: standardised cosine; NaN: the image was not looked at.
        begins: first candidate of each mention.
        weights: weights of the terms.
    """
    if not len(begins):
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(0)
    against_nil = weights.text * log_text + weights.clip_z * (clip_z - weights.nil_z)
    best = best_of_each(against_nil, begins)
    chosen = against_nil[best]
    against_nil[best] = -np.inf
    with np.errstate(invalid="ignore"):
        return best, chosen, log_sum(against_nil, begins)


def evidence_of(chosen: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the log odds of the best candidates' scores; NaN stays NaN.

    Args:
        chosen: their log odds against NIL.
        others: those of all others of their mentions.
    """
    with np.errstate(invalid="ignore"):
        return chosen - np.logaddexp(0.0, others)


def log_sum(logits: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Returns the log of each mention's sum of exp(logit); -inf if all logits are -inf."""
    peak = np.maximum.reduceat(logits, begins)
    floor = np.where(np.isneginf(peak), 0.0, peak)
    lengths = np.diff(np.r_[begins, len(logits)])
    total = np.add.reduceat(np.exp(logits - np.repeat(floor, lengths)), begins)
    with np.errstate(divide="ignore"):
        return floor + np.log(total)


def expit(values: np.ndarray) -> np.ndarray:
    """Returns the probabilities of log odds; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.exp(-np.logaddexp(0.0, -values))


def best_of_each(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Returns the index of the largest value of each run, the first one on a tie."""
    if not len(values):
        return np.zeros(0, np.int64)
    known = np.where(np.isnan(values), -np.inf, values)
    highest = repeat_runs(np.maximum.reduceat(known, begins), begins, len(values))
    largest = np.flatnonzero(known == highest)
    run = np.searchsorted(begins, largest, "right")
    return largest[begins_run(run)]
