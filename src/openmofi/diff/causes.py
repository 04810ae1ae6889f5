"""Why a label is in one version and not in the other: exactly one cause for each.

A label that the other version loses at a step of `select` which knows nothing of its score, such as
the search for duplicates, has that step as its cause. If the candidate was not there, not chosen or
below the threshold, what the two versions differ in is exchanged one after another, in the order of
`CAUSES`, from the version before to the version after, and the label is decided again each time.
The cause is what was exchanged when the label took on, for good, the state that it has after. Where
people corrected one of the versions, this holds for the pairs and names that they said nothing of.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.diff.rules import Choices, Rule, Terms, among, concatenated, joined
from openmofi.diff.version import LabelVersion, Step, terms_of


class Cause(IntEnum):
    """What a change is due to; those up to THRESHOLD in the order in which they are exchanged."""

    INPUT = 0
    KNOWLEDGE_BASE = 1
    ENCODER = 2
    PRIORS = 3
    WEIGHTS = 4
    THRESHOLD = 5
    TEXT_AREA = 6
    EXCLUSION = 7
    DENIED_TYPE = 8
    MAX_ENTITIES = 9
    DUPLICATE = 10
    MIN_IMAGES = 11
    CAP = 12
    CORRECTION = 13

    @property
    def title(self) -> str:
        """Its name in tables."""
        return self.name.lower()


MEANINGS = {
    Cause.INPUT: "the pair is in one version only, or its caption, image or state differs",
    Cause.KNOWLEDGE_BASE: "the entity, its names, or what is known of the candidates differs",
    Cause.ENCODER: "another model, context or reader looked",
    Cause.PRIORS: "names mean other things to this crawl's priors",
    Cause.WEIGHTS: "the order of decision, or the weights of text and image, differ",
    Cause.THRESHOLD: "the threshold differs, given or calibrated",
    Cause.TEXT_AREA: "text covers more of the image than is allowed",
    Cause.EXCLUSION: "the image repeats one that is excluded",
    Cause.DENIED_TYPE: "entities of this type are denied",
    Cause.MAX_ENTITIES: "the image has enough surer entities",
    Cause.DUPLICATE: "another copy of the image is kept",
    Cause.MIN_IMAGES: "the entity has too few images",
    Cause.CAP: "the entity has its most images without it",
    Cause.CORRECTION: "people corrected it, or what they said of others taught it",
}
_OF_STEP = {
    Step.TEXT_IN_PICTURE: Cause.TEXT_AREA,
    Step.EVALUATION_DUPLICATE: Cause.EXCLUSION,
    Step.TYPE_DENIED: Cause.DENIED_TYPE,
    Step.CORRECTED: Cause.CORRECTION,
    Step.TOO_MANY_ENTITIES: Cause.MAX_ENTITIES,
    Step.DUPLICATE: Cause.DUPLICATE,
    Step.ENTITY_TOO_RARE: Cause.MIN_IMAGES,
    Step.ENTITY_HAS_ENOUGH: Cause.CAP,
}
_SCORED = (Step.NOT_A_CANDIDATE, Step.NOT_CHOSEN, Step.PICTURE_DISAGREES)
_NEVER = 99
"""Step of what does not differ."""


@dataclass(frozen=True)
class DecidedRows:
    """Some pairs as one version has them."""

    version: LabelVersion
    rows: pa.Table
    """ROWS."""

    @cached_property
    def terms(self) -> Terms:
        """Their candidates."""
        return terms_of(self.rows)

    @cached_property
    def choices(self) -> Choices:
        """What the version chooses of them."""
        return self.version.rule.decide(self.terms)

    @cached_property
    def step(self) -> np.ndarray:
        """At which each image is refused."""
        return self.rows["step"].to_numpy()

    @cached_property
    def corrected(self) -> np.ndarray:
        """Which pairs the version's corrections are about, or have a name that they are about."""
        corrections, terms = self.version.corrections, self.terms
        found = np.zeros(len(self.rows), bool)
        if corrections is not None and terms.surfaces is not None:
            ids = terms.ids.cast(pa.string())
            found[terms.row[corrections.touches(terms.surfaces, ids)]] = True
            keys = (self.rows[name].combine_chunks().fill_null("") for name in ("key", "shard"))
            found |= corrections.are_about(*keys)
        return found

    def steps_of(self, row: np.ndarray, entity: np.ndarray) -> np.ndarray:
        """Returns the step at which this version loses labels that it does not have."""
        terms, rule, version = self.terms, self.version.rule, self.version
        key = joined(row, entity)
        of_candidate = joined(terms.row, terms.entity)
        of_choice = of_candidate[self.choices.best]
        if version.selection is None:
            step = np.full(len(row), Step.NOT_CHOSEN)
        else:
            known = among(entity, version.classes)
            step = np.where(known, Step.ENTITY_HAS_ENOUGH, Step.ENTITY_TOO_RARE)
            step[self.step[row] == Step.DUPLICATE] = Step.DUPLICATE
            step[among(key, self._crowded_out())] = Step.TOO_MANY_ENTITIES
            passing = of_choice[rule.passes(self.choices)]
            step[~among(key, passing)] = Step.PICTURE_DISAGREES
            step[among(entity, version.denied)] = Step.TYPE_DENIED
            for of_image in (Step.EVALUATION_DUPLICATE, Step.TEXT_IN_PICTURE):
                step[self.step[row] == of_image] = of_image
        step[~among(key, of_choice)] = Step.NOT_CHOSEN
        step[~among(key, of_candidate)] = Step.NOT_A_CANDIDATE
        step[self.rows["damaged"].to_numpy()[row]] = Step.DAMAGED
        # An image is refused with its last label, so that none is lost later.
        return np.minimum(step, self.step[row])

    def _crowded_out(self) -> np.ndarray:
        """Returns the (row, entity) that their images' surer entities leave no room for."""
        terms, choices = self.terms, self.choices
        alive = self.version.rule.passes(choices)
        alive &= ~among(terms.entity[choices.best], self.version.denied)
        best, score = choices.best[alive], choices.score[alive]
        if not len(best):
            return np.zeros(0, np.uint64)
        ids = terms.ids.take(pa.array(best)).dictionary_encode()
        place = np.argsort(pc.sort_indices(ids.dictionary).to_numpy())[ids.indices.to_numpy()]
        row = terms.row[best]
        order = np.lexsort((place, -score, row))
        keys = joined(row[order], terms.entity[best[order]])
        _, first = np.unique(keys, return_index=True)
        first = np.sort(first)  # of each image the surest of each entity
        row = row[order][first]
        rank = np.arange(len(row)) - np.searchsorted(row, row, "left")
        return keys[first][rank >= self.version.settings["max_entities"]]


@dataclass(frozen=True)
class WhatDiffers:
    """In what the jobs behind two versions differ."""

    input: bool
    kb: bool
    model: bool
    reader: bool
    """What reads the captions."""
    priors: bool
    """Those of `label --priors`."""

    @classmethod
    def between(cls, before: LabelVersion, after: LabelVersion) -> WhatDiffers:
        """Compares the descriptions of two jobs."""
        one, other = before.run, after.run
        set_in = one.get("settings", {}), other.get("settings", {})

        def differ(*names: str) -> bool:
            return any(one.get(n) != other.get(n) for n in names) or any(
                set_in[0].get(n) != set_in[1].get(n) for n in names
            )

        shards = [[(s.name, s.pairs) for s in version.shards] for version in (before, after)]
        model = differ("model_sha256", "model", "precision")
        then = differ("then_sha256", "then", "then_share", "then_rate")
        context = [settings.get("context", "words") for settings in set_in]
        return cls(
            input=differ("input") or shards[0] != shards[1],
            kb=differ("kb"),
            model=model or then,
            reader=differ("context_sha256", "context", "fusion_sha256", "read_above", "version")
            or (model and "model" in context),
            priors=differ("priors_sha256"),
        )


def find_causes(
    before: DecidedRows,
    after: DecidedRows,
    row: np.ndarray,
    entity: np.ndarray,
    step: np.ndarray,
    lost: np.ndarray,
) -> np.ndarray:
    """Returns the cause of each label that is in one version only.

    Args:
        before: the pairs in one version.
        after: the same pairs in the other.
        row: pair of each label.
        entity: hash of its id.
        step: where the version that lacks it loses it.
        lost: whether that is the version after.
    """
    cause = np.full(len(row), Cause.INPUT)
    for name, of_step in _OF_STEP.items():
        cause[step == name] = of_step
    differ = WhatDiffers.between(before.version, after.version)
    one, other = (v.version.settings.get("deny_types") for v in (before, after))
    if one == other and differ.kb:
        cause[step == Step.TYPE_DENIED] = Cause.KNOWLEDGE_BASE
    scored = np.isin(step, _SCORED)
    if scored.any():
        exchange = _Exchange(before, after, differ, np.unique(row[scored]))
        cause[scored] = exchange.causes(row[scored], entity[scored], lost[scored])
    said = [v.version.corrections.digest if v.version.corrections else "" for v in (before, after)]
    if said[0] != said[1]:
        by_score = scored | np.isin(step, (Step.TOO_MANY_ENTITIES, Step.ENTITY_HAS_ENOUGH))
        cause[by_score & (before.corrected | after.corrected)[row]] = Cause.CORRECTION
    other_pair = _differ(before.rows, after.rows, "caption") | _differ(
        before.rows, after.rows, "image"
    )
    cause[other_pair[row]] = Cause.INPUT
    return cause


def _differ(one: pa.Table, other: pa.Table, column: str) -> np.ndarray:
    """Returns where a column has two different values; null is unknown."""
    differs = pc.not_equal(one[column].combine_chunks(), other[column].combine_chunks())
    return differs.fill_null(False).to_numpy(zero_copy_only=False)


class _Exchange:
    """Decides pairs with the terms and the rule of one version, step by step those of the other."""

    def __init__(
        self, before: DecidedRows, after: DecidedRows, differ: WhatDiffers, rows: np.ndarray
    ):
        self._versions = before.version, after.version
        count = len(before.rows)
        wanted = np.zeros(count, bool)
        wanted[rows] = True
        self._old = before.terms.take(wanted[before.terms.row])
        self._new = after.terms.take(wanted[after.terms.row])
        self._in_new = _places(self._old, self._new)
        self._in_old = _places(self._new, self._old)
        self._other_candidates = np.zeros(count, bool)
        self._text_step = self._z_step = np.full(count, _NEVER)
        if before.version.i2e != after.version.i2e:
            self._compare(differ, count)

    def _compare(self, differ: WhatDiffers, count: int) -> None:
        """Finds out for each pair at which exchange its candidates and terms change."""
        old, new, at = self._old, self._new, self._in_new
        shared = at >= 0

        def unlike(name: str) -> np.ndarray:
            one, other = getattr(old, name)[shared], getattr(new, name)[at[shared]]
            unequal = ~((one == other) | (np.isnan(one) & np.isnan(other)))
            return _rows_with(old.row[shared], unequal, count)

        gone, come = (
            _rows_with(old.row, ~shared, count),
            _rows_with(new.row, self._in_old < 0, count),
        )
        self._other_candidates = gone | come
        retold = self._retold(count) if differ.kb and (differ.reader or differ.model) else False

        def of(by_encoder: bool) -> np.ndarray | Cause:
            by_kb = retold if by_encoder else differ.kb
            return np.where(by_kb, Cause.KNOWLEDGE_BASE, Cause.ENCODER)

        if differ.kb:
            of_base = of_z = Cause.KNOWLEDGE_BASE
        else:
            of_base = Cause.PRIORS if differ.priors else Cause.ENCODER
            of_z = Cause.INPUT if differ.input else Cause.ENCODER  # which has another background
        of_prior = Cause.PRIORS if differ.priors else of_base
        base = self._other_candidates | unlike("kb_prior")
        self._text_step = np.select(
            [base, unlike("prior"), unlike("text")], [of_base, of_prior, of(differ.reader)], _NEVER
        )
        before, after = self._versions
        if before.looked != after.looked:
            self._z_step = np.full(count, Cause.ENCODER)
        else:
            kinds = [unlike("clip"), unlike("clip_z")]
            self._z_step = np.select(kinds, [of(differ.model), of_z], _NEVER)

    def _retold(self, count: int) -> np.ndarray:
        """Returns which pairs have a candidate whose text differs between the knowledge bases."""
        shared = self._in_new >= 0
        ids = self._old.ids.filter(pa.array(shared)).dictionary_encode()
        names = ids.dictionary.to_pylist()
        texts = [version.kb.entity_text(version.kb.rows_of(names)) for version in self._versions]
        unequal = np.array([one != other for one, other in zip(*texts, strict=True)], bool)
        return _rows_with(self._old.row[shared], unequal[ids.indices.to_numpy()], count)

    def causes(self, row: np.ndarray, entity: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """Returns what each label's state after begins with."""
        key, state = joined(row, entity), lost
        cause = np.full(len(row), Cause.THRESHOLD)
        rule = self._versions[0].rule
        for step in range(Cause.THRESHOLD + 1):
            before, rule = rule, self._rule(step)
            moved = (self._text_step == step).any() or (self._z_step == step).any()
            if not moved and _same_rule(before, rule):
                continue
            terms = self._terms(step)
            choices = rule.decide(terms)
            best = choices.best[rule.passes(choices)]
            there = among(key, joined(terms.row[best], terms.entity[best]))
            cause[there != state] = step
            state = there
        # What rounding alone kept where it was is due to the last thing that differs.
        steps = [np.where(s[row] == _NEVER, -1, s[row]) for s in (self._text_step, self._z_step)]
        latest = np.maximum(*steps)
        return np.where(state == lost, np.where(latest < 0, Cause.THRESHOLD, latest), cause)

    def _rule(self, step: int) -> Rule:
        """Returns the rule after an exchange."""
        old, new = (version.rule for version in self._versions)
        names = ["taught"] if step >= Cause.PRIORS else []
        names += ["order", "weights"] if step >= Cause.WEIGHTS else []
        if self._versions[0].looked != self._versions[1].looked:
            threshold = Cause.ENCODER  # which alone gives it something to apply to
        else:
            threshold = Cause.THRESHOLD if old.order == new.order else Cause.WEIGHTS
        names += ["threshold"] if step >= threshold else []
        return old.with_those_of(new, *names)

    def _terms(self, step: int) -> Terms:
        """Returns the candidates after an exchange."""
        old, new = self._old, self._new
        replaced = self._other_candidates & (self._text_step <= step)
        before, after = self._versions
        in_new, in_old = self._in_new, self._in_old

        text_is_new = (self._text_step[old.row] <= step) & ~replaced[old.row]
        z_is_new = self._z_step[old.row] <= step
        rest = old.clip_z if after.looked else np.full(len(old.row), np.nan, np.float32)
        first = replace(
            old,
            text=_mixed(text_is_new, new.text, in_new, old.text, old.text),
            prior=_mixed(text_is_new, new.prior, in_new, old.prior, old.prior),
            clip_z=_mixed(z_is_new, new.clip_z, in_new, rest, old.clip_z),
        )
        rest = new.clip_z if before.looked else np.full(len(new.row), np.nan, np.float32)
        z_is_old = self._z_step[new.row] > step
        second = replace(new, clip_z=_mixed(z_is_old, old.clip_z, in_old, rest, new.clip_z))
        return concatenated(first.take(~replaced[old.row]), second.take(replaced[new.row]))


def _mixed(
    taken: np.ndarray, there: np.ndarray, place: np.ndarray, rest: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """Returns where `taken` the value at `place`, or `rest` if there is none, elsewhere `own`."""
    if not len(there):
        return np.where(taken, rest, own)
    return np.where(taken, np.where(place >= 0, there[place], rest), own)


def _places(terms: Terms, among: Terms) -> np.ndarray:
    """Returns the index of each candidate among others, or -1."""
    key, keys = (joined((t.row.astype(np.int64) << 24) + t.start, t.entity) for t in (terms, among))
    if not len(keys):
        return np.full(len(key), -1)
    order = np.argsort(keys)
    at = order[np.minimum(np.searchsorted(keys, key, sorter=order), len(keys) - 1)]
    return np.where(keys[at] == key, at, -1)


def _rows_with(row: np.ndarray, flag: np.ndarray, count: int) -> np.ndarray:
    """Returns which rows have a flagged candidate."""
    found = np.zeros(count, bool)
    found[row[flag]] = True
    return found


def _same_rule(one: Rule, other: Rule) -> bool:
    return one.taught is other.taught and replace(one, taught=None) == replace(other, taught=None)
