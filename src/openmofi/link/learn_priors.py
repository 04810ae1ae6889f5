"""Captions -> what they teach about the entities of a knowledge base, without any label.

From at most 262,144 different captions, those with the smallest hashes, so that neither the order
of captions nor the way they are cut into shards matters:

    groups    types that keep the same company become one group (type_groups.py)
    company   names with one kind of meaning teach the company of each group (company.py)
    priors    the names whose meanings are of several groups teach how often each is meant

The last is expectation-maximisation over their mentions. With p0 the knowledge base's prior,
g(e) the group of an entity and q(g | m) = p0(g | m) * tilt(g), normalised,

    E    p(e | mention) = the linker's score: company, context, case and NIL, and log p(e | m) with
                          weight 1, as with less, names without any evidence would become even
    M    p(g | m) = (sum of p(g | mention) + MU * q(g | m)) / (sum over g of both)
         p(e | m) = p(g(e) | m) * p0(e | m) / p0(g(e) | m)
         tilt(g)  = (sum of p(g | mention) + MU) / (sum of p0(g | m) + MU), both over all mentions

until no p(e | m) moves by more than a thousandth. No p(e | m) falls below p0(e | m) or one in a
hundred, whichever is smaller, so that a rare sense can still win. Within a group, nothing but words
would tell the entities apart, and words alone confirm what the prior believes already; so there
the knowledge base's proportions stay.

How far company is trusted (`measure_trust`) depends on what else is believed of the same mentions,
and so on the priors: both are found in turns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from openmofi.arrays.runs import repeat_runs, run_numbers, run_starts
from openmofi.kb.store import KnowledgeBase
from openmofi.kb.text import Captions, as_text, tokenise
from openmofi.link.company import DIM, CompanyModel, company_of, fit_company, measure_trust
from openmofi.link.crawl_priors import CrawlPriors, below_highest, normalised, pairs_of
from openmofi.link.disambiguate import evidence_of, logits
from openmofi.link.linker import Linker
from openmofi.link.type_groups import NO_GROUP, kinds_of, pool_rare_kinds, unite_kinds
from openmofi.link.weights import TERMS

SAMPLE = 1 << 18
FEWEST = 300
"""Mentions, both of names with one kind of meaning and of names with several, below which nothing
is learnt."""
MU = 10.0
"""Mentions that the prior counts as, as for `kb build --anchor-mu`."""
FLOOR = 0.01
_MOST_OF_NAME = 20
"""Mentions of one name that teach company, so that no name stands for its group."""
_BATCH = 8192
_MOST_PASSES = 50
_MOST_TURNS = 5
_CONVERGED = 1e-3
_SAME_TRUST = 0.05
_SHOWN = 20


class CaptionSample:
    """The different captions with the smallest hashes among those added."""

    def __init__(self, kb: KnowledgeBase, size: int = SAMPLE):
        self._hasher, self._size = kb.hasher, size
        self._hashes = np.zeros(0, np.uint64)
        self.captions = pa.array([], pa.large_string())
        """In order of their hashes."""

    def add(self, captions: Captions) -> None:
        """Considers a batch of captions."""
        texts = as_text(captions).drop_null()
        new = self._hasher.strings(texts.cast(pa.string()))
        if len(self._hashes) == self._size:
            small = new < self._hashes[-1]
            texts, new = texts.filter(pa.array(small)), new[small]
        hashes, first = np.unique(np.concatenate([self._hashes, new]), return_index=True)
        self._hashes = hashes[: self._size]
        both = pa.concat_arrays([self.captions, texts])
        self.captions = both.take(pa.array(first[: self._size]))


@dataclass(frozen=True)
class Senses:
    """Mentions with their candidates, one mention after the other."""

    item: Int[np.ndarray, " c"]
    """Number of each candidate's mention, from 0."""
    entity: Int[np.ndarray, " c"]
    prior: Float[np.ndarray, " c"]
    """float64, the knowledge base's."""
    evidence: Float[np.ndarray, " c"]
    """float64 weighted sum of all terms but the prior."""
    key: Int[np.ndarray, " m"]
    """Name of each mention."""
    company: Int[np.ndarray, "m width"]
    is_linked: np.ndarray
    """bool [m]: likelier to mean one of its candidates than none."""

    def only(self, kept: np.ndarray) -> Senses:
        """Returns some of the mentions."""
        of = kept[self.item]
        item = (np.cumsum(kept) - 1)[self.item[of]]
        columns = self.entity[of], self.prior[of], self.evidence[of]
        return Senses(item, *columns, self.key[kept], self.company[kept], self.is_linked[kept])

    def extremes(
        self, of_entity: Int[np.ndarray, " entities"]
    ) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
        """Returns the lowest and the highest value among the candidates of each mention."""
        values, starts = of_entity[self.entity], run_starts(self.item)
        if not len(starts):
            return values, values
        return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)

    def common(self, of_entity: Int[np.ndarray, " entities"]) -> Int[np.ndarray, " m"]:
        """Returns the value that all candidates of a mention share, or NO_GROUP."""
        lowest, highest = self.extremes(of_entity)
        return np.where(lowest == highest, lowest, NO_GROUP)

    @property
    def is_early(self) -> np.ndarray:
        """Whether a mention is among the first of its name, bool [m]."""
        order = np.argsort(self.key, kind="stable")
        starts = run_starts(self.key[order])
        early = np.empty(len(order), bool)
        early[order] = (
            np.arange(len(order)) - repeat_runs(starts, starts, len(order)) < _MOST_OF_NAME
        )
        return early


def senses_of(linker: Linker, captions: pa.LargeStringArray) -> Senses:
    """Links captions, and returns everything that is known about their mentions."""
    parts, num_mentions, kb = [], 0, linker.kb
    for at in range(0, len(captions), _BATCH):
        piece = captions.slice(at, _BATCH)
        table = linker.link(piece, all_candidates=True)
        row, start, end = (table[name].to_numpy() for name in ("row", "start", "end"))
        item, first = run_numbers(row, start), run_starts(row, start)
        keys = kb.keys(table["surface"].take(pa.array(first)).combine_chunks())
        terms = {
            name: table[name].to_numpy().astype(np.float64)
            for name in TERMS
            if name != "prior" and not table[name].null_count
        }
        prior = table["prior"].to_numpy().astype(np.float64)
        evidence = evidence_of(table["rank"].to_numpy(), prior, terms)
        del evidence["prior"]
        scores = table["score"].to_numpy().astype(np.float64)
        found = Senses(
            item=item,
            entity=np.array(kb.rows_of(table["id"].to_pylist()), np.int64),
            prior=prior,
            evidence=logits(evidence, linker.weights) + np.zeros(len(item)),
            key=keys,
            company=company_of(tokenise(piece), row[first], start[first], end[first], kb.hasher),
            is_linked=np.bincount(item, scores, len(first)) > 0.5,
        )
        # The linker finds some names by another spelling than their own: no key, no name.
        found = found.only(keys >= 0)
        parts.append(replace(found, item=found.item + num_mentions))
        num_mentions += len(found.key)
    names = ("item", "entity", "prior", "evidence", "key", "company", "is_linked")
    return Senses(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def learn_priors(linker: Linker, captions: pa.LargeStringArray) -> CrawlPriors:
    """Learns from captions.

    Args:
        linker: links them as far as the knowledge base alone allows; without priors of a crawl.
        captions: of a `CaptionSample`.

    Returns:
        Priors that change nothing and say why, if there is too little to learn from.
    """
    kb = linker.kb
    if not len(captions):
        return _nothing(kb, 0, "there are no captions")
    senses = senses_of(linker, captions)
    if len(senses.key) < 2 * FEWEST:
        few = f"there are {len(senses.key):,} mentions of names, and learning needs {2 * FEWEST}"
        return _nothing(kb, len(captions), few)
    groups, types = _group_entities(kb, senses)
    lowest, highest = senses.extremes(groups)
    several, one = lowest != highest, (lowest == highest) & (lowest != NO_GROUP)
    taught = senses.only(one & senses.is_linked & senses.is_early)
    asked = senses.only(several)
    usable = several & (lowest != NO_GROUP) & senses.is_linked & senses.is_early
    num_one = int((one & senses.is_linked).sum())
    if len(types) < 2:
        return _nothing(kb, len(captions), "the names in these captions are of one group of types")
    if min(num_one, int(several.sum())) < FEWEST:
        return _nothing(
            kb,
            len(captions),
            f"there are {num_one:,} mentions of names with one kind of meaning and "
            f"{int(several.sum()):,} of names with several, and learning needs {FEWEST} of each",
        )
    model = fit_company(taught.company, taught.common(groups))
    model, names, passes = _find_priors(linker, groups, model, asked, usable[several])
    about = {
        "off": "",
        "captions": len(captions),
        "mentions": {"one group": num_one, "several groups": len(asked.key)},
        "passes": passes,
        "groups": [
            {"types": shown, "tilt": round(float(tilt), 3)}
            for shown, tilt in zip(types, names.tilt, strict=False)
        ],
        "moved": _moved(kb, names, asked),
    }
    prior = names.prior.astype(np.float32)
    return CrawlPriors(kb.meta["fingerprint"], groups, names.tilt, model, names.pairs, prior, about)


def _nothing(kb: KnowledgeBase, captions: int, reason: str) -> CrawlPriors:
    none = np.zeros(0)
    model = CompanyModel(np.zeros((DIM + 1, 0), np.float32), none, none)
    groups, about = np.full(len(kb), NO_GROUP, np.int16), {"off": reason, "captions": captions}
    fingerprint, pairs = kb.meta["fingerprint"], none.astype(np.int64)
    return CrawlPriors(fingerprint, groups, np.ones(1), model, pairs, none, about)


def _group_entities(
    kb: KnowledgeBase, senses: Senses
) -> tuple[Int[np.ndarray, " entities"], list[list[str]]]:
    """Returns (the group of each entity, the most frequent types of each group)."""
    columns = kb.entities(["types", "source"]).combine_chunks()
    kind, types = kinds_of(columns["types"].combine_chunks())
    sources = columns["source"].combine_chunks().dictionary_encode()
    clear = senses.is_linked
    of_names = np.unique(np.stack([senses.common(kind), senses.key])[:, clear], axis=1)[0]
    num_names = np.bincount(of_names[of_names != NO_GROUP], minlength=len(types) + 1)
    kind = pool_rare_kinds(kind, sources.indices.to_numpy(), num_names)
    of_mention = senses.common(kind)
    clear = clear & (of_mention != NO_GROUP)
    united = unite_kinds(senses.company[clear], of_mention[clear], senses.key[clear])
    group_of = np.full(kind.max() + 1, NO_GROUP, np.int16)
    group_of[list(united)] = list(united.values())
    names = [*types, "no type", *(f"rest of {name}" for name in sources.dictionary.to_pylist())]
    shown = [
        [names[k] for k, at in sorted(united.items()) if at == group][:_SHOWN]
        for group in range(max(united.values(), default=-1) + 1)
    ]
    return group_of[kind], shown


# ---- expectation-maximisation -------------------------------------------------------------------


@dataclass(frozen=True)
class NamePriors:
    """p(entity | name) of some names."""

    pairs: Int[np.ndarray, " p"]
    """See `pairs_of`; sorted."""
    name: Int[np.ndarray, " p"]
    """Number of the name, from 0."""
    group: Int[np.ndarray, " p"]
    """Group of the entity, from 0; the last stands for none."""
    start: Float[np.ndarray, " p"]
    """The knowledge base's prior."""
    prior: Float[np.ndarray, " p"]
    tilt: Float[np.ndarray, " groups"]
    """How much more often each group is meant; always 1 for none."""


def reestimate(
    names: NamePriors, pair: Int[np.ndarray, " c"], posterior: Float[np.ndarray, " c"]
) -> NamePriors:
    """Returns the priors after one M step.

    Args:
        names: what was believed before.
        pair: index of the name and entity of each candidate of all mentions.
        posterior: p(entity | mention).
    """
    num_groups = len(names.tilt)
    before, of_pair = names.start[pair], names.group[pair]
    expected = np.bincount(of_pair, before, num_groups)
    tilt = (np.bincount(of_pair, posterior, num_groups) + MU) / (expected + MU)
    tilt[-1] = 1.0
    counts = np.bincount(pair, posterior, len(names.pairs))
    counts += MU * normalised(names.start * tilt[names.group], names.name)
    cell = names.name * num_groups + names.group
    of_group = np.bincount(cell, normalised(counts, names.name))[cell]
    prior = names.start * of_group / np.bincount(cell, names.start)[cell]
    prior = np.maximum(prior, np.minimum(names.start, FLOOR))
    return replace(names, prior=normalised(prior, names.name), tilt=tilt)


def posterior_of(
    linker: Linker,
    senses: Senses,
    prior: Float[np.ndarray, " c"],
    log_ratios: Float[np.ndarray, " c"] | float,
) -> Float[np.ndarray, " c"]:
    """Returns p(entity | mention) of every candidate, as a linker with priors of weight 1 would.

    Args:
        linker: whose other weights count.
        senses: the mentions.
        prior: p(entity | name) of each candidate.
        log_ratios: the company's, of each candidate; only differences within mentions count.
    """
    weights, starts = linker.weights, run_starts(senses.item)
    of_name = np.log(prior) + weights.type * log_ratios
    score = below_highest(of_name, senses.item) + senses.evidence
    peak = np.maximum(np.maximum.reduceat(score, starts), weights.nil)
    odds = np.exp(score - peak[senses.item])
    total = np.add.reduceat(odds, starts) + np.exp(weights.nil - peak)
    return odds / total[senses.item]


def _find_priors(
    linker: Linker, groups: np.ndarray, model: CompanyModel, asked: Senses, usable: np.ndarray
) -> tuple[CompanyModel, NamePriors, int]:
    """Returns (the model with its trust, the priors, number of passes).

    Args:
        linker: whose weights count.
        groups: of all entities.
        model: with trust 1.
        asked: mentions of names of several groups.
        usable: those of them that tell how far company can be trusted.
    """
    num_groups = len(model.shares)
    keys = np.unique(asked.key)
    offered = linker.kb.index.candidates(keys)
    pairs = pairs_of(keys[offered.item], offered.entity)
    order = np.argsort(pairs)
    group = groups[offered.entity[order]].astype(np.int64)
    group[group == NO_GROUP] = num_groups
    start, tilt = offered.prior[order], np.ones(num_groups + 1)
    names = NamePriors(pairs[order], offered.item[order], group, start, start, tilt)
    pair = np.searchsorted(names.pairs, pairs_of(asked.key[asked.item], asked.entity))
    ratios = np.pad(model.log_ratios(asked.company), ((0, 0), (0, 1)))
    of_candidate = ratios[asked.item, group[pair]]
    cell = asked.item * (num_groups + 1) + group[pair]
    trust, passes = 1.0, 0
    for _ in range(_MOST_TURNS):
        # With company, unless that contradicts everything else. The other way round, names that
        # the knowledge base gets wrong would speak against company.
        for _ in range(_MOST_PASSES):
            old, passes = names.prior, passes + 1
            posterior = posterior_of(linker, asked, old[pair], trust * of_candidate)
            names = reestimate(names, pair, posterior)
            if np.abs(names.prior - old).max() < _CONVERGED:
                break
        others = posterior_of(linker, asked, names.prior[pair], 0.0)
        belief = np.bincount(cell, others, len(asked.key) * (num_groups + 1))
        belief = belief.reshape(-1, num_groups + 1)[usable, :-1]
        belief /= belief.sum(1, keepdims=True)
        before = trust
        trust = measure_trust(ratios[usable, :-1], model.shares, belief) if usable.any() else 0.0
        if abs(trust - before) < _SAME_TRUST:
            break
    return replace(model, trust=trust), names, passes


def _moved(kb: KnowledgeBase, names: NamePriors, asked: Senses) -> list[dict[str, Any]]:
    """Returns the most frequent names whose likeliest entity is another one now."""
    starts = run_starts(names.name)
    bounds = zip(starts.tolist(), [*starts[1:].tolist(), len(names.name)], strict=True)
    keys, counts = np.unique(asked.key, return_counts=True)
    found = []
    for number, (low, high) in enumerate(bounds):
        old, new = (low + int(p[low:high].argmax()) for p in (names.start, names.prior))
        if old != new:
            found.append((-int(counts[number]), number, old, new))
    found = sorted(found)[:_SHOWN]
    texts = kb.canonical_names(keys[[number for _, number, *_ in found]]) if found else []

    def meaning(at: int, prior: np.ndarray) -> dict[str, Any]:
        entity = int(names.pairs[at] & 0xFFFFFFFF)
        label = kb.texts.label[entity].as_py()
        return {"id": kb.ids[entity].as_py(), "label": label, "prior": round(float(prior[at]), 3)}

    return [
        {
            "name": text,
            "mentions": -count,
            "before": meaning(old, names.start),
            "after": meaning(new, names.prior),
        }
        for text, (count, _, old, new) in zip(texts, found, strict=True)
    ]
