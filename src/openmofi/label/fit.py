"""Fits the weights of the joint score to labels whose truth is known.

In: the output of `label` and what some of its images show. Out: `ScoreWeights`, by maximum
likelihood of the shown candidate of each mention, or of NIL where none of them is shown. With the
truth of a few hundred images of one's own, the weights fit one's own captions and encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.label.score import ScoreWeights, load_weights
from openmofi.shards import committed_files

_FEWEST = 100


def fit_weights(i2e: Path | str, truth: Mapping[str, str]) -> ScoreWeights:
    """Returns the weights under which the truth is most probable.

    Args:
        i2e: output of `label`.
        truth: key of an image -> id of the entity that it shows; other images are not used.

    Raises:
        InputError: the truth covers fewer than 100 mentions.
    """
    terms, mention, shown = _read(Path(i2e), truth)
    num_mentions = int(mention[-1]) + 1 if len(mention) else 0
    if num_mentions < _FEWEST:
        raise InputError(
            f"The truth covers {num_mentions} mentions of {str(i2e)!r}; fitting needs {_FEWEST}."
        )
    return _fit(terms, mention, shown)


def _read(i2e: Path, truth: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (log prior, context and clip_z [c, 3], mention [c], whether it is shown [c])."""
    terms, mention, shown = [], [], []
    number = -1
    for path in committed_files(i2e):
        for row in pq.read_table(path, columns=["key", "entities"]).to_pylist():
            start = None
            for candidate in row["entities"] if row["key"] in truth else ():
                number += candidate["start"] != start
                start = candidate["start"]
                log_prior = np.log(max(candidate["prior"], 1e-9))
                terms.append((log_prior, candidate["context"], candidate["clip_z"]))
                mention.append(number)
                shown.append(candidate["id"] == truth[row["key"]])
    return np.array(terms).reshape(-1, 3), np.array(mention, dtype=np.int64), np.array(shown)


def _fit(terms: np.ndarray, mention: np.ndarray, shown: np.ndarray) -> ScoreWeights:
    from scipy.optimize import minimize

    starts = np.flatnonzero(np.r_[True, mention[1:] != mention[:-1]])
    nil_shown = ~np.logical_or.reduceat(shown, starts)
    shipped = load_weights()
    first = [shipped.log_prior, shipped.context, shipped.clip_z, shipped.clip_z * shipped.nil_z]

    def loss(weights: np.ndarray) -> float:
        text = terms[:, :2] @ weights[:2]
        text = text - np.maximum.reduceat(text, starts)[mention]
        logits, nil = text + weights[2] * terms[:, 2], weights[3]
        peak = np.maximum(np.maximum.reduceat(logits, starts), nil)
        total = np.add.reduceat(np.exp(logits - peak[mention]), starts) + np.exp(nil - peak)
        log_total = np.log(total) + peak
        likelihood = (logits - log_total[mention])[shown].sum() + (nil - log_total)[nil_shown].sum()
        return -likelihood / len(starts) + 1e-4 * float(np.square(weights).sum())

    bounds = [(0, None), (0, None), (1e-3, None), (None, None)]
    log_prior, context, clip_z, nil = minimize(loss, first, method="L-BFGS-B", bounds=bounds).x
    return ScoreWeights(float(log_prior), float(context), float(clip_z), float(nil / clip_z))
