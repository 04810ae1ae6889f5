"""One labels file -> the candidate that each mention stands for, in a given order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.label.score import joint_score, load_weights

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
        best = _best(terms["score"], mention)
        other = joint_score(
            np.log(np.maximum(terms["prior"], 1e-9)),
            terms["context"],
            terms["clip_z_other"],
            mention,
            load_weights(),
        )
        best_other = _best(other, mention)
    else:
        by = "text_score" if order == "text-first" else "prior"
        best = best_other = _best(terms[by], mention)
    return Choice(
        row[best],
        flat.field("id").take(pa.array(best)),
        terms["score" if order == "joint" else "text_score"][best],
        terms["clip_z"][best],
        terms["clip_z_other"][best_other],
    )


def _best(values: np.ndarray, mention: np.ndarray) -> np.ndarray:
    """Returns the index of the largest value of each mention; the first one on a tie."""
    order = np.lexsort((np.arange(len(values)), -values, mention))
    first = np.r_[True, mention[order][1:] != mention[order][:-1]]
    return order[first]
