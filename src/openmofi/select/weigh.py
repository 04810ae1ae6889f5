"""The weights of the joint score, fitted to one's own captions and encoder without any label.

In: candidates with their own picture's `clip_z` and with another caption's (`clip_z_other`). With
another caption's picture nothing is shown that the caption names, so those pairs are examples of
NIL; one's own pairs are a mixture of the same and of mentions that are shown. Telling the two apart
is learning from positive and unlabelled examples (Elkan and Noto, KDD 2008), with the roles
exchanged. By the joint score, a mention's candidates have the odds R = sum of exp(logit - NIL)
against NIL. If a share pi of the mentions is not shown, then

    density(features | own) / density(features | other) = pi (1 + R)

and the weights and pi are those that best tell own from other pairs by this ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from openmofi.label.score import LEAST_TEXT, ScoreWeights, load_weights
from openmofi.select.choose import Candidates, log_sum, read_mentions

_FEWEST = 200
"""Mentions of either kind below which the shipped weights are the better guess."""
_ENOUGH = 100_000
"""Mentions beyond which more of them change nothing that matters."""
_RIDGE = 1e-4


@dataclass(frozen=True)
class Weighing:
    """Weights, and what was learnt on the way."""

    weights: ScoreWeights
    unshown_share: float | None
    """Share pi of the mentions that are not shown; None: not estimated."""
    num_mentions: int
    """Mentions that the weights were fitted to; 0: they are the shipped ones."""


def weigh(files: Sequence[Path]) -> Weighing:
    """Returns weights fitted to the mentions of labels files, or of a spread of many files.

    Args:
        files: committed labels files.
    """
    found: list[Candidates] = []
    mentions = 0
    for path in _spread(files):
        part = read_mentions(path, "joint")
        if len(part.row) and part.looked:
            found.append(part)
            mentions += len(part.begins)
        if mentions > _ENOUGH:
            break
    if not found:
        return Weighing(load_weights(), None, 0)
    shifts = np.cumsum([0, *(len(part.row) for part in found[:-1])])
    begins = [part.begins + shift for part, shift in zip(found, shifts, strict=True)]
    columns = [
        [getattr(part, name) for part in found] for name in ("text", "clip_z", "clip_z_other")
    ]
    text, clip_z, other = (np.concatenate(column) for column in columns)
    return fit_weights(text, clip_z, other, np.concatenate(begins))


def _spread(files: Sequence[Path]) -> list[Path]:
    """Returns the files in an order in which any first few lie far apart."""
    order = np.argsort(np.arange(len(files)) * 0.6180339887498949 % 1.0, kind="stable")
    return [files[i] for i in order]


def fit_weights(
    text_score: Float[np.ndarray, " c"],
    clip_z: Float[np.ndarray, " c"],
    clip_z_other: Float[np.ndarray, " c"],
    begins: Int[np.ndarray, " m"],
) -> Weighing:
    """Returns the weights under which own pairs differ most plausibly from mismatched ones.

    Mentions without both are left out on both sides: they are the popular ones, whose texts would
    else tell own pairs from mismatched ones.

    Args:
        text_score: p(candidate | text).
        clip_z: of the candidate with its own picture; NaN where nobody looked at it.
        clip_z_other: with another caption's; NaN in mentions of which that caption offers a
            candidate, too.
        begins: first candidate of each mention.
    """
    from scipy.optimize import minimize
    from scipy.special import log_expit

    shipped = load_weights()
    kept, begins = _with_both(clip_z, clip_z_other, begins)
    if len(begins) < _FEWEST:
        return Weighing(shipped, None, 0)
    log_text = np.log(np.maximum(text_score[kept], LEAST_TEXT)).astype(np.float64)
    own, other = (z[kept].astype(np.float64) for z in (clip_z, clip_z_other))

    def loss(values: np.ndarray) -> float:
        text, picture, nil, log_odds = values
        log_pi = log_expit(log_odds)
        of_own = log_sum(text * log_text + picture * own - nil, begins)
        of_other = log_sum(text * log_text + picture * other - nil, begins)
        gain = log_expit(log_pi + np.logaddexp(0, of_own)).sum()
        gain += log_expit(-(log_pi + np.logaddexp(0, of_other))).sum()
        return -float(gain) / (2 * len(begins)) + _RIDGE * (text**2 + picture**2)

    first = [shipped.text, shipped.clip_z, shipped.clip_z * shipped.nil_z, -1.0]
    bounds = [(0.05, 3.0), (1e-2, 30.0), (-30.0, 100.0), (-7.0, 7.0)]
    text, picture, nil, log_odds = minimize(loss, first, method="L-BFGS-B", bounds=bounds).x
    weights = ScoreWeights(float(text), float(picture), float(nil / picture))
    return Weighing(weights, float(np.exp(log_expit(log_odds))), len(begins))


def _with_both(
    clip_z: np.ndarray, clip_z_other: np.ndarray, begins: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (which candidates are of mentions that have both, where these mentions begin)."""
    if not len(begins):
        return np.zeros(0, bool), begins
    lengths = np.diff(np.r_[begins, len(clip_z)])
    whole = ~np.logical_or.reduceat(np.isnan(clip_z) | np.isnan(clip_z_other), begins)
    return np.repeat(whole, lengths), np.cumsum(lengths[whole]) - lengths[whole]
