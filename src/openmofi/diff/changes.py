"""A block of pairs in two versions -> the labels that were gained, lost or changed, each once.

A label is an entity of a pair. It is lost if only the version before has it, gained if only the
version after has it. If one mention of the same caption chose the one before and the other after,
and neither is chosen for the pair in the other version, then the two are one change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.diff.causes import Cause, DecidedRows, find_causes
from openmofi.diff.matching import AlignedRows
from openmofi.diff.rules import among, joined
from openmofi.diff.version import LabelVersion, Step, labels_of, terms_of
from openmofi.schema import CHANGES

KINDS = ("gained", "lost", "changed")
_UNCHOSEN = (Step.NOT_A_CANDIDATE, Step.NOT_CHOSEN)
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class BlockChanges:
    """The changes of a block, and what stayed."""

    table: pa.Table
    """schema.CHANGES."""
    before: int
    """Labels of the version before."""
    after: int
    kept: int
    """Labels that both versions have."""
    kept_with_other_score: int


@dataclass(frozen=True)
class _OneSided:
    """Labels that only one version has; one element per label."""

    row: np.ndarray
    """Among the pairs with changes."""
    entity: np.ndarray
    score: np.ndarray


def find_changes(block: AlignedRows, before: LabelVersion, after: LabelVersion) -> BlockChanges:
    """Returns the changes of a block.

    Args:
        block: pairs of both versions, or of one of them.
        before: the version before.
        after: the version after.
    """
    if not block.is_matched:
        return _lonely(block, before, after)
    (old_row, old_entity, old_score), (new_row, new_entity, new_score) = (
        labels_of(rows) for rows in (block.before, block.after)
    )
    old_key, new_key = joined(old_row, old_entity), joined(new_row, new_entity)
    is_lost, is_gained = ~among(old_key, new_key), ~among(new_key, old_key)
    rows = np.unique(np.r_[old_row[is_lost], new_row[is_gained]])
    lost = _OneSided(
        np.searchsorted(rows, old_row[is_lost]), old_entity[is_lost], old_score[is_lost]
    )
    gained = _OneSided(
        np.searchsorted(rows, new_row[is_gained]), new_entity[is_gained], new_score[is_gained]
    )
    scores = [
        score[np.argsort(key)]
        for score, key in (
            (old_score[~is_lost], old_key[~is_lost]),
            (new_score[~is_gained], new_key[~is_gained]),
        )
    ]
    moved = ~(np.abs(scores[0] - scores[1]) <= _SAME_SCORE)
    sides = [
        DecidedRows(version, part.take(pa.array(rows)).combine_chunks())
        for version, part in ((before, block.before), (after, block.after))
    ]
    table = _changes(sides[0], sides[1], lost, gained)
    return BlockChanges(table, len(old_row), len(new_row), len(moved), int(moved.sum()))


def _changes(
    before: DecidedRows, after: DecidedRows, lost: _OneSided, gained: _OneSided
) -> pa.Table:
    """Returns schema.CHANGES of pairs that both versions have."""
    lost_step = after.steps_of(lost.row, lost.entity)
    gained_step = before.steps_of(gained.row, gained.entity)
    row = np.r_[lost.row, gained.row]
    entity = np.r_[lost.entity, gained.entity]
    step = np.r_[lost_step, gained_step]
    is_lost = np.arange(len(row)) < len(lost.row)
    cause = find_causes(before, after, row, entity, step, is_lost)
    first, second = _switched(before, after, lost, lost_step, gained, gained_step)
    score = np.r_[lost.score, gained.score]
    kind = np.where(is_lost, KINDS.index("lost"), KINDS.index("gained"))
    kind[first] = KINDS.index("changed")
    partner = np.full(len(row), -1)
    partner[first] = second + len(lost.row)
    stays = np.ones(len(row), bool)
    stays[second + len(lost.row)] = False
    old = np.where(is_lost, np.arange(len(row)), -1)
    new = np.where(is_lost, partner, np.arange(len(row)))
    order = np.flatnonzero(stays)
    order = order[np.argsort(row[order], kind="stable")]
    ids = _ids(entity, before, after)
    places = [(old, before.rows, before.version), (new, after.rows, after.version)]
    return _table(order, row, kind, step, cause, places, ids, score)


def _lonely(block: AlignedRows, before: LabelVersion, after: LabelVersion) -> BlockChanges:
    """Returns the changes of pairs that only one version has: every label is lost or gained."""
    is_lost = len(block.before) > 0
    rows = block.before if is_lost else block.after
    row, entity, score = labels_of(rows)
    named = np.unique(row)
    rows, row = rows.take(pa.array(named)).combine_chunks(), np.searchsorted(named, row)
    side = _known_ids(rows)
    order = np.arange(len(row))
    nobody = np.full(len(row), -1)
    places = [(order if is_lost else nobody, rows, before)]
    places += [(nobody if is_lost else order, rows, after)]
    kind = np.full(len(row), KINDS.index("lost" if is_lost else "gained"))
    step = np.full(len(row), Step.ABSENT)
    cause = np.full(len(row), Cause.INPUT)
    table = _table(order, row, kind, step, cause, places, _looked_up(entity, *side), score)
    counts = (len(row), 0) if is_lost else (0, len(row))
    return BlockChanges(table, *counts, 0, 0)


def _switched(
    before: DecidedRows,
    after: DecidedRows,
    lost: _OneSided,
    lost_step: np.ndarray,
    gained: _OneSided,
    gained_step: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which lost labels became which gained ones, since a mention chose otherwise."""
    captions = [rows["caption"].combine_chunks() for rows in (before.rows, after.rows)]
    reworded = pc.not_equal(*captions).fill_null(False).to_numpy(zero_copy_only=False)
    mentions, labels_of_mention = [], []
    for side, labels, step in ((before, lost, lost_step), (after, gained, gained_step)):
        terms, best = side.terms, side.choices.best
        place = np.flatnonzero(np.isin(step, _UNCHOSEN) & ~reworded[labels.row])
        if not len(place):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        key = joined(labels.row[place], labels.entity[place])
        order = np.argsort(key)
        of_mention = joined(terms.row[best], terms.entity[best])
        at = order[np.minimum(np.searchsorted(key, of_mention, sorter=order), len(key) - 1)]
        mine = key[at] == of_mention
        mentions.append(((terms.row[best].astype(np.int64) << 24) + terms.start[best])[mine])
        labels_of_mention.append(place[at[mine]])
    _, i, j = np.intersect1d(*mentions, assume_unique=True, return_indices=True)
    first, second = labels_of_mention[0][i], labels_of_mention[1][j]
    for part in (0, 1):  # an entity that two mentions chose is one label
        once = np.sort(np.unique((first, second)[part], return_index=True)[1])
        first, second = first[once], second[once]
    return first, second


def _known_ids(rows: pa.Table) -> tuple[np.ndarray, pa.Array]:
    """Returns the candidates' ids by their hashes, which are sorted."""
    terms = terms_of(rows)
    entity, first = np.unique(terms.entity, return_index=True)
    return entity, terms.ids.take(pa.array(first))


def _ids(entity: np.ndarray, before: DecidedRows, after: DecidedRows) -> pa.Array:
    known = np.r_[before.terms.entity, after.terms.entity]
    ids = pa.concat_arrays([before.terms.ids, after.terms.ids])
    hashed, first = np.unique(known, return_index=True)
    return _looked_up(entity, hashed, ids.take(pa.array(first)))


def _looked_up(entity: np.ndarray, hashed: np.ndarray, ids: pa.Array) -> pa.Array:
    return ids.take(pa.array(np.searchsorted(hashed, entity)))


def _table(
    order: np.ndarray,
    row: np.ndarray,
    kind: np.ndarray,
    step: np.ndarray,
    cause: np.ndarray,
    sides: list[tuple[np.ndarray, pa.Table, LabelVersion]],
    ids: pa.Array,
    score: np.ndarray,
) -> pa.Table:
    """Returns schema.CHANGES.

    Args:
        order: the labels that are rows, in order.
        row: pair of each label.
        kind: index into KINDS of each.
        step: where the version that lacks it loses it.
        cause: of each.
        sides: for both versions, the label that each row has there, or -1, and its pairs.
        ids: id of each label.
        score: of each label.
    """
    pairs = sides[0][1].take(pa.array(row[order]))
    columns: dict[str, Any] = {name: pairs[name] for name in ("key", "shard")}
    columns["kind"] = _named(kind[order], KINDS)
    columns["cause"] = _named(cause[order], [cause.title for cause in Cause])
    columns["reason"] = _named(step[order], [step.reason for step in Step])
    for name, (label, rows, version) in zip(("before", "after"), sides, strict=True):
        label = label[order]
        index = pa.array(np.maximum(label, 0), mask=label < 0)
        columns[f"id_{name}"] = ids.take(index)
        columns[f"score_{name}"] = pa.array(score, pa.float32()).take(index)
        there = (step[order] != Step.ABSENT) | (label >= 0)
        place = pa.array(row[order], mask=~there)
        files = pa.array([shard.file for shard in version.shards], pa.string())
        columns[f"file_{name}"] = files.take(rows["file"].combine_chunks().take(place))
        columns[f"row_{name}"] = rows["row"].take(place)
    return pa.table(columns, schema=CHANGES)


def _named(codes: np.ndarray, names: Any) -> pa.Array:
    kind = pa.array(codes, pa.int8())
    return pa.DictionaryArray.from_arrays(kind, pa.array(names)).cast(pa.string())
