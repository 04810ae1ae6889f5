"""How a version of labels decides: its candidates and its rule -> the choice of each mention.

The same functions decide what `select` decided and what it would have decided with some of the
other version's terms, which is how `causes` finds out what a change is due to.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.runs import run_numbers, run_starts
from openmofi.arrays.splitmix64 import GOLDEN
from openmofi.corrections.keys import pair_keys
from openmofi.kb.text import canonical_batch
from openmofi.label.score import ScoreWeights, best_of_each, load_weights
from openmofi.link.crawl_priors import normalised
from openmofi.select.choose import ScoredCandidates, judge
from openmofi.select.image_priors import FILE as PRIORS_FILE
from openmofi.select.image_priors import prior_weight, replaced_prior
from openmofi.select.selection import Selection

_HASHER = Hasher(0)


def hashes(texts: pa.Array) -> np.ndarray:
    """Returns 64 bits for each text, by which texts of one pair are told apart."""
    return _HASHER.strings(texts)


def joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns 64 bits for each two numbers, of which the second are hashes."""
    return other + one.astype(np.uint64) * np.uint64(GOLDEN)


def among(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns which keys are among others; as np.isin, but fast for hashes."""
    if not len(others) or not len(keys):
        return np.zeros(len(keys), bool)
    ordered = np.sort(others)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return ordered[at] == keys


@dataclass(frozen=True)
class Terms:
    """The candidates of some rows, mention by mention; one element per candidate."""

    row: np.ndarray
    """Ascending."""
    start: np.ndarray
    """First character of the mention."""
    entity: np.ndarray
    """Hash of the id."""
    text: np.ndarray
    prior: np.ndarray
    kb_prior: np.ndarray
    """What the prior is without those of a crawl."""
    clip: np.ndarray
    clip_z: np.ndarray
    ids: pa.Array
    surfaces: pa.Array | None

    def take(self, index: np.ndarray) -> Terms:
        """Returns some of the candidates, by number or by mask."""
        index = np.flatnonzero(index) if index.dtype == bool else index
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                taken[field.name] = value[index]
            else:
                taken[field.name] = None if value is None else value.take(pa.array(index))
        return Terms(**taken)

    @cached_property
    def begins(self) -> np.ndarray:
        """First candidate of each mention."""
        return run_starts(self.row, self.start)


def concatenated(one: Terms, other: Terms) -> Terms:
    """Returns the candidates of both, whose rows differ; those of a row stay together."""
    joint: dict[str, Any] = {}
    for field in fields(Terms):
        parts = [getattr(one, field.name), getattr(other, field.name)]
        if isinstance(parts[0], np.ndarray):
            joint[field.name] = np.concatenate(parts)
        else:
            joint[field.name] = None if None in parts else pa.concat_arrays(parts)
    return Terms(**joint)


@dataclass(frozen=True)
class Choices:
    """One element per mention."""

    best: np.ndarray
    """Index of the chosen candidate."""
    score: np.ndarray
    evidence: np.ndarray
    """What the threshold applies to; NaN if the image was not looked at."""


@dataclass(frozen=True)
class TaughtNames:
    """What images taught about names: p(entity | name) of `select --priors images`."""

    keys: np.ndarray
    """Hashes of name and id, sorted."""
    after: np.ndarray
    weight: float
    """How much a log prior counts in the text's score."""

    def apply(self, terms: Terms) -> np.ndarray:
        """Returns the texts' scores with these priors."""
        if not len(self.keys) or not len(terms.row):
            return terms.text
        assert terms.surfaces is not None
        item = run_numbers(terms.row, terms.start)
        keys = pair_keys(hashes(canonical_batch(terms.surfaces)), terms.entity)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        after = np.where(self.keys[at] == keys, self.after[at], terms.prior)
        new = normalised(after, item)
        found = replaced_prior(terms.text, terms.prior, new, item, self.weight)
        return found.astype(np.float32)


@dataclass(frozen=True)
class Rule:
    """How the candidates' terms become labels; see `select`."""

    order: str
    weights: ScoreWeights | None
    threshold: float | None
    """On the evidence; None: everything chosen is kept."""
    taught: TaughtNames | None

    def decide(self, terms: Terms) -> Choices:
        """Returns what is chosen, as `select.choose` chooses it."""
        begins = terms.begins
        text = terms.prior if self.order == "caption-match" else terms.text
        if self.taught is not None and self.order != "caption-match":
            text = self.taught.apply(terms)
        best = best_of_each(text, begins)
        evidence = terms.clip_z[best]
        if self.order != "joint" or np.isnan(terms.clip_z).all():
            return Choices(best, text[best], evidence)
        assert self.weights is not None
        nobody = pa.nulls(0, pa.string()).dictionary_encode()
        found = ScoredCandidates(
            terms.row, nobody, begins, text, terms.clip_z, np.zeros((len(text), 0))
        )
        own = judge(found, terms.clip_z, self.weights)
        looked = ~np.isnan(evidence)
        return Choices(
            np.where(looked, own.best, best),
            np.where(looked, own.score, text[best]),
            np.where(looked, own.evidence, np.nan),
        )

    def passes(self, choices: Choices) -> np.ndarray:
        """Returns for each mention whether its choice reaches the threshold."""
        if self.threshold is None:
            return np.ones(len(choices.best), bool)
        return choices.evidence >= self.threshold

    def with_those_of(self, other: Rule, *names: str) -> Rule:
        """Returns this rule with some fields of another."""
        return replace(self, **{name: getattr(other, name) for name in names})


def rule_of_labels() -> Rule:
    """Returns the rule for labels that nobody selected from: the best by the shipped weights."""
    return Rule("joint", load_weights(), None, None)


def rule_of_selection(selection: Selection) -> Rule:
    """Returns the rule that a selection was made by."""
    card = selection.card
    weights = ScoreWeights(**card["weights"]) if card["weights"] else None
    order = card["settings"]["order"]
    taught = None
    if (selection.folder / PRIORS_FILE).is_file():
        table = pq.read_table(selection.folder / PRIORS_FILE, columns=["name", "id", "after"])
        names = table["name"].combine_chunks()
        keys = pair_keys(hashes(names), hashes(table["id"].combine_chunks()))
        place = np.argsort(keys)
        after = table["after"].to_numpy()[place]
        taught = TaughtNames(keys[place], after, prior_weight(selection.i2e))
    if order == "joint" and weights is None:
        weights = load_weights()
    return Rule(order, weights, card["threshold"], taught)
