"""One labels file -> the chosen candidate of each mention, in a given order of decision.

Columns are read one by one and stay flat arrays: ten thousand images take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.runs import run_starts
from openmofi.label.score import (
    LEAST_TEXT,
    MISMATCHED,
    ScoreWeights,
    best_of_each,
    evidence_of,
    expit,
    log_odds,
)

_TERMS = {"joint": ("text_score",), "text-first": ("text_score",), "caption-match": ("prior",)}


@dataclass(frozen=True)
class ChosenCandidates:
    """The chosen candidates of one labels file; arrays have one element per mention."""

    row: np.ndarray
    """Row of the labels file."""
    ids: pa.DictionaryArray
    score: np.ndarray
    evidence: np.ndarray
    """What the threshold applies to: for joint the log odds of the score, else clip_z; NaN if the
    image was not looked at."""
    evidence_other: np.ndarray
    """[m, k]: the evidence of what would have been chosen with each of k other images, whose
    captions have none of the mention's candidates; NaN if there are fewer."""
    confused: np.ndarray
    """For joint: the probability that another candidate is shown, given that one is; else 0."""
    priors: np.ndarray
    """[m, 2]: p(entity | name) before and after the images taught it; [m, 0] if they did not."""
    known: np.ndarray
    """int8, what people said of it: 1 right, -1 wrong, 0 nothing."""


@dataclass(frozen=True)
class ScoredCandidates:
    """All candidates of one labels file, mention by mention."""

    row: np.ndarray
    ids: pa.DictionaryArray | None
    """None if they were not asked for."""
    begins: np.ndarray
    """First candidate of each mention."""
    text: np.ndarray
    """text_score; for caption-match, the prior."""
    clip_z: np.ndarray
    clip_z_other: np.ndarray
    """[c, k]; a column is NaN for all candidates of a mention or for none."""
    starts: np.ndarray | None = None
    """First character of each mention in the caption."""
    surfaces: pa.StringArray | None = None
    """The name of each mention as it is written, if asked for."""
    prior: np.ndarray | None = None
    """p(entity | name) in the labels, if asked for."""
    priors: np.ndarray | None = None
    """[c, 2]: the same before and after the images taught it."""
    shift: np.ndarray | None = None
    """[c]: log odds against NIL that answers taught."""
    known: np.ndarray | None = None
    """int8 [m]: 1: people say that its only candidate is right; -1: that it has none; else 0."""

    @property
    def item(self) -> np.ndarray:
        """The number of each candidate's mention."""
        sizes = np.diff(np.r_[self.begins, len(self.row)])
        return np.repeat(np.arange(len(self.begins)), sizes)

    @cached_property
    def log_text(self) -> np.ndarray:
        """The logarithm of the text's probability, float64."""
        return np.log(np.maximum(self.text, LEAST_TEXT)).astype(np.float64)

    def log_text_for(self, weights: ScoreWeights) -> np.ndarray:
        """Returns `log_text` with the shift, which the text's weight then leaves as it is."""
        return self.log_text if self.shift is None else self.log_text + self.shift / weights.text

    @property
    def looked(self) -> bool:
        """Whether an encoder looked at any of the images."""
        return not np.isnan(self.clip_z).all()


@runtime_checkable
class TaughtPriors(Protocol):
    """Priors that images taught; `image_priors.ImagePriors` is one."""

    def apply(self, found: ScoredCandidates, /) -> ScoredCandidates:
        """Returns the candidates with these priors."""
        ...


@runtime_checkable
class Corrected(Protocol):
    """What people said; `corrections.Corrections` is one."""

    def apply(self, found: ScoredCandidates, path: Path, group: int | None, /) -> ScoredCandidates:
        """Returns the candidates of a labels file as the corrections leave them."""
        ...


def read_mentions(
    path: Path,
    order: str,
    priors: TaughtPriors | None = None,
    corrections: Corrected | None = None,
    *,
    with_ids: bool = True,
    with_names: bool = False,
    group: int | None = None,
) -> ScoredCandidates:
    """Returns the columns of a committed labels file that an order needs.

    Args:
        path: the file.
        order: see `choose`.
        priors: replace those of the labels, for the order joint.
        corrections: what people said.
        with_ids: whether to read the candidates' ids.
        with_names: whether to read what priors are learnt from.
        group: the row group to read; None: all.
    """
    with_names |= priors is not None or corrections is not None
    with_ids |= with_names
    names = ["start", "clip_z", "clip_z_other", *_TERMS[order]]
    names += ["id"] * with_ids + ["surface", "prior"] * with_names
    row, flat = read_candidates(path, names, group)
    number = {name: _floats(flat.field(name)) for name in ("start", "clip_z", *_TERMS[order])}
    begins = run_starts(row, number["start"])
    other = _other_floats(flat.field("clip_z_other"))
    if len(row):
        unknown = np.logical_or.reduceat(np.isnan(other), begins)
        other[np.repeat(unknown, np.diff(np.r_[begins, len(row)]), axis=0)] = np.nan
    ids = flat.field("id").dictionary_encode() if with_ids else None
    start = number["start"][begins].astype(np.int32)
    terms = number[_TERMS[order][0]], number["clip_z"], other
    found = ScoredCandidates(row, ids, begins, *terms, start)
    if with_names:
        surfaces = flat.field("surface").take(pa.array(begins))
        found = replace(found, surfaces=surfaces, prior=_floats(flat.field("prior")))
    found = found if priors is None else priors.apply(found)
    return found if corrections is None else corrections.apply(found, path, group)


def choose(
    path: Path,
    order: str,
    weights: ScoreWeights | None = None,
    priors: TaughtPriors | None = None,
    corrections: Corrected | None = None,
    *,
    group: int | None = None,
) -> ChosenCandidates:
    """Chooses one candidate per mention.

    Args:
        path: a committed labels file.
        order: joint (best by the joint score, or by the text's if the images were not looked at),
            text-first (best by the text's score) or caption-match (the most popular).
        weights: weights of the joint score; needed for joint.
        priors: what images taught about names, for joint.
        corrections: what people said.
        group: the row group to read; None: all.
    """
    found = read_mentions(path, order, priors, corrections, group=group)
    own, evidence_other = best_candidates(found, order, weights)
    assert found.ids is not None
    ids = found.ids.take(pa.array(own.best))
    row = found.row[own.best]
    priors_of = np.zeros((len(row), 0)) if found.priors is None else found.priors[own.best]
    known = np.zeros(len(row), np.int8) if found.known is None else found.known
    score = np.where(known > 0, 1, own.score).astype(own.score.dtype)
    evidence = np.where(known > 0, np.inf, own.evidence).astype(own.evidence.dtype)
    return ChosenCandidates(
        row, ids, score, evidence, evidence_other, own.confused, priors_of, known
    )


@dataclass(frozen=True)
class BestCandidates:
    """The candidates that an order chooses; arrays have one element per mention."""

    best: np.ndarray
    """Index of the chosen candidate."""
    score: np.ndarray
    """By the joint score p(chosen), NIL included."""
    evidence: np.ndarray
    """By the joint score its log odds, exact even if the score rounds to 1; else clip_z."""
    confused: np.ndarray
    """By the joint score p(another candidate) / p(any candidate); else 0."""


def best_candidates(
    found: ScoredCandidates, order: str, weights: ScoreWeights | None
) -> tuple[BestCandidates, np.ndarray]:
    """Returns the best candidate of each mention in an order, and `evidence_other`."""
    if order != "joint" or not found.looked:
        best = best_of_each(found.text, found.begins)
        own = BestCandidates(best, found.text[best], found.clip_z[best], np.zeros(len(best)))
        return own, found.clip_z_other[best]
    assert weights is not None
    own = judge(found, found.clip_z, weights)
    text = found.log_text_for(weights)
    others = [log_odds(text, z, found.begins, weights) for z in found.clip_z_other.T]
    return own, np.stack([evidence_of(chosen, rest) for _, chosen, rest in others], axis=1)


def judge(found: ScoredCandidates, clip_z: np.ndarray, weights: ScoreWeights) -> BestCandidates:
    """Returns the best candidate of each mention by the joint score (label/score.py)."""
    text = found.log_text_for(weights)
    best, chosen, others = log_odds(text, clip_z, found.begins, weights)
    evidence = evidence_of(chosen, others)
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return BestCandidates(best, expit(evidence), evidence, expit(others - chosen))


def read_candidates(
    path: Path, names: Sequence[str], group: int | None = None
) -> tuple[np.ndarray, pa.StructArray]:
    """Returns (row of each candidate of a labels file, the candidates with the named fields).

    Args:
        path: the file.
        names: fields of schema.SCORED_ENTITY.
        group: the row group to read, whose rows are counted from 0; None: all.
    """
    columns = [f"entities.list.element.{name}" for name in names]
    with pq.ParquetFile(path) as file:
        table = file.read(columns) if group is None else file.read_row_group(group, columns)
    entities = table["entities"].combine_chunks()
    return pc.list_parent_indices(entities).to_numpy(), entities.flatten()


def _floats(values: pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)


def _other_floats(values: pa.Array) -> np.ndarray:
    """Returns [c, k]: lists of floats, padded with NaN.

    Labels of older versions hold a single number or null; then k is 1.
    """
    if not pa.types.is_list(values.type):
        return _floats(values)[:, None].copy()
    lengths = values.value_lengths().fill_null(0).to_numpy()
    found = np.full((len(values), MISMATCHED), np.nan, np.float32)
    found[np.arange(found.shape[1]) < lengths[:, None]] = _floats(values.flatten())
    return found
