"""Writes names.parquet: stage 2 of the merge.

In: names from the part files, links and decisions of the user (`links.py`), the rows of entities.
Out: one row per canonical name and entity, sorted by name, then by falling p(entity | name). A name
with a barrier has a second row, under the form with its sign ("oak chair -45 cm").

p0(entity | name) = kind_weight * language_weight * prior. If c(m, e) links with text m lead to
entity e, counted on the web or in Wikipedia, their share is smoothed towards the prior:
p(e | m) = (c(m, e) + mu * p0(e | m)) / (c(m) + mu), where p0 sums to 1 over a name's entities. This
is a Dirichlet prior of strength mu (Zhai and Lafferty 2004, doi:10.1145/984321.984322). A decision
replaces p; the other entities of the name share the rest in proportion.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.runs import repeat_runs, run_starts
from openmofi.config import KBSettings
from openmofi.kb.merge.ranking import Ranking
from openmofi.kb.merge.sorting import Database, TableWriter, whole_groups
from openmofi.kb.read.parts import KINDS, PartFiles
from openmofi.kb.spelling import spellings
from openmofi.kb.text import signed_forms
from openmofi.schema import NAMES

SORTED_NAMES = pa.schema(
    [
        ("key", pa.string()),
        ("entity", pa.int32()),
        ("weight", pa.float64()),  # p0, not normalised; 0 for links and decisions
        ("kind", pa.int8()),
        ("count", pa.int64()),
        ("record", pa.int32()),  # with `position`: the order of reading
        ("position", pa.int32()),
        ("raw", pa.string()),
        ("language", pa.string()),
        ("p", pa.float64()),  # of a decision; -1 without one
        ("spelling", pa.int8()),  # of all names of a knowledge base's entity; 0: that of `raw`
    ]
)
# The rows of one name and entity become one row, with the fields of the first. The last keys are
# the order of reading, so the result depends neither on threads nor on chunks.
_ORDER = "key, entity, weight DESC, kind, count DESC, record, position"
_ROWS_PER_GROUP = 1 << 16
_ANCHOR = KINDS.index("anchor")
# Matches any name with a barrier; only these names are tokenised a second time.
_PERHAPS_BARRIER = (
    r"[|¦•—―。｡｜…&\r\n\v\f\x{1c}-\x{1e}\x{85}\x{2028}\x{2029}]"
    r"|[.．․][^\pL\pN]|[^\pL\pN][\-‐‑‒–−－][^\pL\pN]"
)
REMOVED = -1
"""Entity of a decision that removes a name."""


def write_names(
    path: Path,
    parts: Sequence[PartFiles],
    links: Iterable[pa.RecordBatch],
    ranking: Ranking,
    database: Database,
    settings: KBSettings,
) -> np.ndarray:
    """Writes names.parquet and returns the number of aliases of each row of entities.

    Args:
        path: path of names.parquet.
        parts: the part files, one per source.
        links: rows of SORTED_NAMES from anchors and decisions.
        ranking: rows and priors.
        database: sorts the names.
        settings: weights.
    """
    num_aliases = np.zeros(len(ranking), np.int32)
    batches = _with_signed_forms(chain(_weighted(parts, ranking, settings), links))
    ordered = database.sorted(batches, SORTED_NAMES, _ORDER)
    combine = _Combiner(settings)
    with TableWriter(path, NAMES, rows_per_group=_ROWS_PER_GROUP) as writer:
        for table, starts in whole_groups(ordered, "key"):
            names = combine(table, starts)
            is_signed = pc.match_substring_regex(pc.field("key"), r" [^\pL\pN\pM']")
            aliases = names.filter((pc.field("kind") == "alias") & ~is_signed)
            np.add.at(num_aliases, aliases["entity"].to_numpy(), 1)
            writer.write(names)
    return num_aliases


def _weighted(
    parts: Sequence[PartFiles], ranking: Ranking, settings: KBSettings
) -> Iterator[pa.RecordBatch]:
    kind_weight = np.array([1.0, 1.0, settings.alias_weight])
    first = next((code for code in settings.languages if code != "mul"), "mul")
    languages = pa.array([code for code in settings.languages if code not in (first, "mul")])
    base = 0
    for files in parts:
        for num_entities, batch in files.names():
            record = base + batch["entity"].to_numpy()
            base += num_entities
            entity = ranking.row_of_record[record]
            kind = batch["kind"].to_numpy()
            is_other = pc.is_in(batch["language"], languages.cast(pa.string()))
            weight = kind_weight[kind] * ranking.prior[entity]
            weight[is_other.to_numpy(zero_copy_only=False)] *= settings.language_weight
            columns = {
                "key": batch["key"],
                "entity": entity,
                "weight": weight,
                "kind": batch["kind"],
                "count": np.zeros(len(batch), np.int64),
                "record": record.astype(np.int32),
                "position": batch["position"],
                "raw": batch["raw"],
                "language": batch["language"],
                "p": np.full(len(batch), -1.0),
                "spelling": _spelling(batch),
            }
            named = pa.RecordBatch.from_pydict(columns, schema=SORTED_NAMES)
            yield named.filter(pa.array((entity >= 0) & (weight > 0)))


def _spelling(batch: pa.RecordBatch) -> pa.Array | np.ndarray:
    """Returns the spellings that a knowledge base has, or 0."""
    if "spelling" in batch.schema.names:
        return batch["spelling"]
    return np.zeros(len(batch), np.int8)


def _with_signed_forms(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yields the rows, and those of names with a barrier again under the form with its sign.

    A knowledge base has both forms already.
    """
    for batch in batches:
        yield batch
        is_new = pc.equal(batch["spelling"], 0)
        perhaps = batch.filter(
            pc.and_(is_new, pc.match_substring_regex(batch["raw"], _PERHAPS_BARRIER))
        )
        if len(perhaps):
            number, key = signed_forms(perhaps["raw"])
            held = perhaps.take(pa.array(number))
            yield held.set_column(
                SORTED_NAMES.get_field_index("key"), SORTED_NAMES.field("key"), key
            )


class _Combiner:
    """Turns the sorted rows of whole names into rows of names.parquet."""

    def __init__(self, settings: KBSettings):
        self._mu = settings.anchor_mu if settings.anchors else None
        self._min_count = settings.anchor_min_count

    def __call__(self, table: pa.Table, name_starts: np.ndarray) -> pa.Table:
        name = repeat_runs(np.arange(len(name_starts)), name_starts, len(table))
        entity = table["entity"].to_numpy()
        starts = run_starts(name, entity)
        count = np.add.reduceat(table["count"].to_numpy(), starts)
        p = np.maximum.reduceat(table["p"].to_numpy(), starts)
        kind = table["kind"].to_numpy()[starts]
        kept = (kind != _ANCHOR) | (count >= self._min_count) | (p >= 0)
        removed = np.zeros(len(name_starts), bool)
        removed[name[entity == REMOVED]] = True
        kept &= ~removed[name[starts]]

        at, count, p = starts[kept], count[kept], p[kept]
        name, weight = name[at], table["weight"].to_numpy()[at]
        weight = self._combined(name, weight, count, p, len(name_starts)).astype(np.float32)
        # An entity to which a decision leaves no probability is no longer a candidate.
        order = np.lexsort((entity[at], -weight, name))
        order = order[weight[order] > 0]
        # How the names of each entity are written; links count if there is nothing else.
        known = table["spelling"].to_numpy()
        each = known if known.all() else np.where(known, known, spellings(table["raw"]))
        own = np.where(table["kind"].to_numpy() < _ANCHOR, each, 0).astype(np.int8)
        united = np.bitwise_or.reduceat(own, starts)
        spelling = np.where(united > 0, united, each[starts]).astype(np.int8)
        rows = table.take(pa.array(at[order]))
        columns = {
            "key": rows["key"],
            "raw": rows["raw"],
            "spelling": pa.array(spelling[kept][order]),
            "language": rows["language"],
            "kind": pa.array(KINDS).take(rows["kind"]),
            "entity": rows["entity"],
            "count": pa.array(count[order]),
            "weight": pa.array(weight[order]),
        }
        return pa.table(columns, schema=NAMES)

    def _combined(
        self, name: np.ndarray, p0: np.ndarray, count: np.ndarray, p: np.ndarray, num_names: int
    ) -> np.ndarray:
        weight = p0
        if self._mu is not None:
            weight = smoothed(name, p0, count, self._mu, num_names)
        if np.any(p >= 0):
            weight = decided(name, weight, p, num_names)
        return weight


def smoothed(
    name: np.ndarray, p0: np.ndarray, count: np.ndarray, mu: float, num_names: int
) -> np.ndarray:
    """Returns p(e | m) = (c(m, e) + mu * p0(e | m)) / (c(m) + mu) of pairs (m, e).

    Args:
        name: the number of m, from 0.
        p0: prior of e under m, not normalised.
        count: c(m, e).
        mu: the number of links for which the prior counts.
        num_names: the number of different m.
    """
    total_p0 = np.bincount(name, p0, num_names)[name]
    total_count = np.bincount(name, count, num_names)[name]
    p0 = np.divide(p0, total_p0, out=np.zeros_like(p0), where=total_p0 > 0)
    return (count + mu * p0) / (total_count + mu)


def decided(name: np.ndarray, weight: np.ndarray, p: np.ndarray, num_names: int) -> np.ndarray:
    """Returns weights in which a pair with p >= 0 has that share of its name's total weight.

    The other pairs of the name share 1 - sum(p) in proportion to their weights.
    """
    is_decided = p >= 0
    decided_sum = np.bincount(name, np.where(is_decided, p, 0), num_names)
    others_sum = np.bincount(name, np.where(is_decided, 0, weight), num_names)
    total = np.bincount(name, weight, num_names)
    total[total == 0] = 1  # a name that occurs only in decisions
    has_decision = np.bincount(name, is_decided, num_names) > 0
    scale = np.ones(num_names)
    left = np.maximum(1 - decided_sum, 0) * total
    np.divide(left, others_sum, out=scale, where=has_decision & (others_sum > 0))
    return np.where(is_decided, p * total[name], weight * scale[name])
