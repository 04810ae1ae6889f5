"""One labels file -> the candidate that each mention stands for, in a given order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.label.score import ScoreWeights, joint_score

_TERMS = ("start", "prior", "context", "clip_z", "clip_z_other", "text_score", "score")


@dataclass(frozen=True)
class Choice:
    """The chosen candidates of one labels file; arrays have one element per mention."""

    row: np.ndarray
    """Row of the labels file."""
    ids: pa.Array
    score: np.ndarray
    clip_z: np.ndarray
    clip_z_other: np.ndarray
    """clip_z of what would have been chosen had the picture been another caption's."""


def choose(path: Path, order: str) -> Choice:
    """Chooses one candidate per mention.

    Args:
        path: a committed labels file.
        order: joint (best by the joint score), or text-first (best by prior and context),
            or caption-match (the most popular).
    """
    entities = pq.read_table(path, columns=["entities"])["entities"].combine_chunks()
    row = pc.list_parent_indices(entities).to_numpy()
    flat = entities.flatten()
    terms = {name: flat.field(name).to_numpy(zero_copy_only=False) for name in _TERMS}
    if not len(row):
        empty = np.zeros(0)
        return Choice(row, flat.field("id"), empty, empty, empty)
    boundary = (row[1:] != row[:-1]) | (terms["start"][1:] != terms["start"][:-1])
    mention = np.r_[0, np.cumsum(boundary)]
    if order == "joint":
        log_prior = np.log(np.maximum(terms["prior"], 1e-9))
        weights = _weights_of(path)
        other = joint_score(log_prior, terms["context"], terms["clip_z_other"], mention, weights)
        own = terms["score"]
        best, best_other = _best(own, mention), _best(other, mention)
    else:
        own = terms["text_score" if order == "text-first" else "prior"]
        best = best_other = _best(own, mention)
    return Choice(
        row[best],
        flat.field("id").take(pa.array(best)),
        own[best],
        terms["clip_z"][best],
        terms["clip_z_other"][best_other],
    )


def _weights_of(path: Path) -> ScoreWeights:
    """Returns the weights that the labels were scored with."""
    run = json.loads((path.parents[1] / "run.json").read_text())
    return ScoreWeights(**run["weights"])


def _best(values: np.ndarray, mention: np.ndarray) -> np.ndarray:
    """Returns the index of the largest value of each mention; the first one on a tie."""
    order = np.lexsort((np.arange(len(values)), -values, mention))
    first = np.r_[True, mention[order][1:] != mention[order][:-1]]
    return order[first]
