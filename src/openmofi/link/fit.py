"""Fits the weights of the linker's score to texts whose mentions are linked by hand.

In: groups of examples, each from its own texts and knowledge base. Out: `LinkWeights` under which
the gold entities, or NIL if none of a mention's candidates is right, are most probable: a
conditional logistic regression (McFadden 1974) with weights of at least 0, so that every term keeps
its meaning. Where nobody annotated, but images tell, the truth is a distribution over candidates.

Only texts with all mentions annotated show which names mean nothing. If only some are annotated,
others may be names too: then the fit asks only which of its candidates a mention means, given that
it means one, and leaves out mentions without a right one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.arrays.runs import repeat_runs
from openmofi.errors import InputError
from openmofi.kb.text import Captions
from openmofi.link.disambiguate import evidence_of
from openmofi.link.linkability import mean_odds
from openmofi.link.linker import Linker
from openmofi.link.weights import TERMS, LinkWeights

_FEWEST = 100
_FEWEST_OF_TYPE = 20
_REGULARISATION = 1e-3
"""Penalty, per mention, on the squared distance from the initial weights."""

GOLD = pa.schema(
    [
        ("row", pa.int32()),  # index of the text
        ("start", pa.int32()),  # code points
        ("end", pa.int32()),
        ("id", pa.string()),  # null: NIL
        ("optional", pa.bool_()),  # a date, or not annotated: neither right nor wrong
        ("probability", pa.float64()),  # that this is meant
    ]
)


@dataclass(frozen=True)
class LinkExamples:
    """Mentions linked with one knowledge base whose truth is known."""

    candidates: pa.Table
    """`schema.CANDIDATES` with all candidates of every mention."""
    target: np.ndarray
    """Probability that each candidate is what its mention means: 0 or 1 where people annotated."""
    types: pa.ListArray
    """Types of each candidate."""
    complete: bool
    """Whether all mentions of the texts are annotated."""

    @property
    def begin(self) -> np.ndarray:
        """The first candidate of every mention."""
        return np.flatnonzero(self.candidates["rank"].to_numpy() == 0)

    def __len__(self) -> int:
        return len(self.begin)


@dataclass(frozen=True)
class LinkFit:
    """Fitted weights, and how probable the truth is under them."""

    weights: LinkWeights
    mentions: int
    nil: int
    """Mentions without a right candidate."""
    nil_of_group: list[float]
    """The weight of NIL in each group; `weights` has the mean over groups with examples of it."""
    before: float
    """Mean log likelihood of the truth under the initial weights."""
    after: float
    """The same under the fitted weights."""


def examples_of(linker: Linker, texts: Captions, gold: pa.Table, *, complete: bool) -> LinkExamples:
    """Returns what a linker offers for mentions whose truth is known.

    Args:
        linker: computes the terms of the score.
        texts: the texts with the gold spans.
        gold: table of `GOLD`; spans that are not names of the knowledge base give no example.
            A span may have a row for each of several probable meanings.
        complete: whether all mentions of the texts are in `gold`. Then every other name that the
            linker finds is an example of NIL, unless it shares a character with a gold span.
    """
    required = gold.filter(np.logical_not(gold["optional"].to_numpy(zero_copy_only=False)))
    spans = required.select(["row", "start", "end"])
    spans = spans.group_by(spans.column_names, use_threads=False).aggregate([])
    offered = linker.link_spans(texts, spans, all_candidates=True)
    if complete:
        others = linker.link(texts, all_candidates=True)
        offered = pa.concat_tables([offered, others.filter(~_overlaps(others, gold))])
    meant = zip(_places(required), required["id"].to_pylist(), strict=True)
    truth = dict(zip(meant, required["probability"].to_pylist(), strict=True))
    answers = zip(_places(offered), offered["id"].to_pylist(), strict=True)
    target = np.array([truth.get(answer, 0.0) for answer in answers])
    begin = np.flatnonzero(offered["rank"].to_numpy() == 0)
    if not complete and len(begin):
        # Given that one of its candidates is meant; mentions without are left out.
        any_of_them = repeat_runs(np.add.reduceat(target, begin), begin, len(target))
        answered = any_of_them > 0
        offered, target = offered.filter(answered), target[answered] / any_of_them[answered]
    rows = np.array(linker.kb.rows_of(offered["id"].to_pylist()), np.int64)
    types = linker.kb.entities(["types"])["types"].combine_chunks().take(pa.array(rows))
    return LinkExamples(offered, target, types, complete)


def _places(table: pa.Table) -> list[tuple[int, int, int]]:
    return list(zip(*(table[name].to_pylist() for name in ("row", "start", "end")), strict=True))


def _overlaps(found: pa.Table, gold: pa.Table) -> np.ndarray:
    """Returns which found mentions share a character with a gold one."""
    spans: dict[int, list[tuple[int, int]]] = {}
    for row, start, end in _places(gold):
        spans.setdefault(row, []).append((start, end))
    shared = [
        any(a < end and start < b for a, b in spans.get(row, ()))
        for row, start, end in _places(found)
    ]
    return np.array(shared, dtype=bool)


def fit_link_weights(
    groups: Sequence[LinkExamples],
    *,
    start: LinkWeights,
    data: str,
    terms: Collection[str] = TERMS,
) -> LinkFit:
    """Fits one set of weights to several groups of examples.

    All groups count the same, however many mentions they have, because the size of a file does not
    tell how often such texts will be linked. A term that a group's linker lacks is 0 there. How
    often a name means nothing depends on the texts and the knowledge base, not on the evidence, so
    every group has its own weight of NIL.

    Args:
        groups: results of `examples_of`.
        start: initial weights, towards which the fit is regularised; weights of terms that no group
            has do not change.
        data: name of the data, stored with the weights.
        terms: terms to fit in addition to NIL; other weights do not change.

    Raises:
        InputError: the groups have fewer than 100 mentions with a name of their knowledge base.
    """
    groups = [group for group in groups if len(group)]
    mentions = sum(len(group) for group in groups)
    if mentions < _FEWEST:
        raise InputError(
            f"{data} has {mentions} mentions with a name of the knowledge base; fitting needs "
            f"{_FEWEST}."
        )
    types = _type_odds(groups) if "type" in terms else {}
    start = replace(start, types=types or start.types)
    evidence = [evidence_in(group, start.types) for group in groups]
    present = {name for one in evidence for name in one}
    names = [name for name in TERMS if name in present and name in terms]
    fixed = [name for name in TERMS if name in present and name not in terms]
    likelihood = _Likelihood(groups, evidence, names, {n: getattr(start, n) for n in fixed})
    return _maximise(likelihood, names, start, data)


def _type_odds(groups: Sequence[LinkExamples]) -> dict[str, float]:
    """Returns for each type how much higher its log odds of being right are than those of all."""
    seen, hits, right, count = Counter(), Counter(), 0.0, 0
    for group in groups:
        names = group.types.flatten().to_numpy(zero_copy_only=False)
        hit = group.target[group.types.value_parent_indices().to_numpy()]
        seen.update(names.tolist())
        known, place = np.unique(names, return_inverse=True)
        sums = np.bincount(place, hit, len(known))
        hits.update(dict(zip(known.tolist(), sums.tolist(), strict=True)))
        right, count = right + float(group.target.sum()), count + len(group.target)
    share = (right + 1) / (count + 2)
    return {
        name: round(float(_log_odds((hits[name] + share) / (times + 1)) - _log_odds(share)), 3)
        for name, times in seen.most_common()
        if times >= _FEWEST_OF_TYPE
    }


def _log_odds(probability: float) -> float:
    return float(np.log(probability) - np.log1p(-probability))


def evidence_in(group: LinkExamples, types: dict[str, float]) -> dict[str, np.ndarray]:
    """Returns the summands of the linear score of every candidate, see `evidence_of`.

    Args:
        group: the candidates.
        types: log odds of types.
    """
    columns = group.candidates
    terms = {
        name: columns[name].to_numpy().astype(np.float64)
        for name in TERMS
        if name not in ("prior", "type") and not columns[name].null_count
    }
    if types:
        terms["type"] = mean_odds(group.types, types).astype(np.float64)
    return evidence_of(columns["rank"].to_numpy(), columns["prior"].to_numpy(), terms)


class _Likelihood:
    """The mean log likelihood of the truth in all groups.

    Its parameters are the weights of the terms, then one weight of NIL per group.
    """

    def __init__(
        self,
        groups: Sequence[LinkExamples],
        evidence: Sequence[dict[str, np.ndarray]],
        names: Sequence[str],
        fixed: dict[str, float],
    ):
        sizes = [len(group.target) for group in groups]
        counts = [len(group) for group in groups]
        offsets = np.cumsum([0, *sizes[:-1]])

        def column(name: str) -> np.ndarray:
            parts = zip(evidence, sizes, strict=True)
            return np.concatenate([one.get(name, np.zeros(size)) for one, size in parts])

        columns = [column(name) for name in names]
        self._matrix = np.array(columns).reshape(len(names), sum(sizes)).T
        self._constant = sum((w * column(name) for name, w in fixed.items()), np.zeros(sum(sizes)))
        self._target = np.concatenate([group.target for group in groups])
        begins = zip(groups, offsets, strict=True)
        self._begin = np.concatenate([group.begin + at for group, at in begins])
        self._mention = repeat_runs(np.arange(sum(counts)), self._begin, len(self._target))
        self._share = np.repeat([1 / (n * len(groups)) for n in counts], counts)
        self._complete = np.repeat([group.complete for group in groups], counts)
        self._group = np.repeat(np.arange(len(groups)), counts)
        self._is_nil = np.add.reduceat(self._target, self._begin) == 0
        self.nil_of_group = np.bincount(self._group, self._is_nil, len(groups)).astype(int)

    def __len__(self) -> int:
        return len(self._is_nil)

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Returns the likelihood and its gradient."""
        of_terms, of_nil = np.split(weights, [self._matrix.shape[1]])
        logit = self._constant + self._matrix @ of_terms
        nil = np.where(self._complete, of_nil[self._group], -np.inf)
        peak = np.maximum(np.maximum.reduceat(logit, self._begin), nil)
        exponentials = np.exp(logit - peak[self._mention])
        total = np.add.reduceat(exponentials, self._begin) + np.exp(nil - peak)
        log_total = np.log(total) + peak
        surprise = log_total[self._mention] - logit
        share = self._share[self._mention]
        missed = (log_total - nil)[self._is_nil]
        value = -((share * self._target) @ surprise + self._share[self._is_nil] @ missed)
        slope = self._matrix.T @ (share * (self._target - exponentials / total[self._mention]))
        by_mention = self._share * (self._is_nil - np.exp(nil - log_total))
        return float(value), np.append(slope, np.bincount(self._group, by_mention, len(of_nil)))


def _maximise(
    likelihood: _Likelihood, names: Sequence[str], start: LinkWeights, data: str
) -> LinkFit:
    from scipy.optimize import minimize

    nil_of_group = likelihood.nil_of_group
    first = np.array([getattr(start, name) for name in names] + [start.nil] * len(nil_of_group))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood(weights)
        away = weights - first
        return _REGULARISATION * float(away @ away) - value, 2 * _REGULARISATION * away - slope

    # Without examples of NIL, its weight would diverge.
    nil_bounds = [(None, None) if count else (start.nil, start.nil) for count in nil_of_group]
    bounds = [*[(0, None)] * len(names), *nil_bounds]
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds).x
    of_terms, of_nil = np.split(found, [len(names)])
    nil = of_nil[nil_of_group > 0].mean() if nil_of_group.any() else start.nil
    values: dict[str, Any] = {
        name: round(float(value), 4)
        for name, value in zip([*names, "nil"], [*of_terms, nil], strict=True)
    }
    return LinkFit(
        weights=replace(start, **values, fitted_on=data),
        mentions=len(likelihood),
        nil=int(nil_of_group.sum()),
        nil_of_group=[round(float(value), 4) for value in of_nil],
        before=likelihood(first)[0],
        after=likelihood(found)[0],
    )
