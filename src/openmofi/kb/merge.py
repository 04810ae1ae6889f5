"""Turns the records of all sources into the two tables and the index of a knowledge base.

In: EntityRecords, source after source. Out: entities in order of popularity, names with their
weights, the index. Works on columns: a record is taken apart as soon as it arrives.

The prior of an entity is (1 + popularity)^gamma, popularity being its sitelinks or the weight its
catalogue gives; p0(entity | name) = kind_weight * prior, normalised over a name's entities.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.hashing import Hasher
from openmofi.kb.index import NameIndex, build_index
from openmofi.kb.records import EntityRecord
from openmofi.kb.text import canonical_batch
from openmofi.schema import ENTITIES, NAMES

KINDS = ("label", "title", "alias")
_FLUSH_ROWS = 1 << 15
# Seeds to try; two of 100 million names collide with probability 3e-4 per seed.
_MAX_SEEDS = 8


class _Columns:
    """Growing columns: Python lists that become Arrow arrays piece by piece."""

    def __init__(self, **types: pa.DataType):
        self.schema = pa.schema(list(types.items()))
        self.pending: list[tuple] = []
        self._batches: list[pa.RecordBatch] = []

    def append(self, *values: Any) -> None:
        self.pending.append(values)
        if len(self.pending) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        columns = zip(*self.pending, strict=True) if self.pending else [()] * len(self.schema)
        arrays = [
            pa.array(values, column.type)
            for values, column in zip(columns, self.schema, strict=True)
        ]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self.pending = []

    def table(self) -> pa.Table:
        self.flush()
        return pa.Table.from_batches(self._batches, self.schema).combine_chunks()


class Records:
    """Collects the records of all sources as columns."""

    def __init__(self) -> None:
        self._entities = _Columns(
            id=pa.string(),
            label=pa.string(),
            description=pa.string(),
            types=pa.list_(pa.string()),
            image=pa.string(),
            enwiki=pa.string(),
            sitelinks=pa.int32(),
            popularity=pa.float64(),
            source=pa.int32(),
            line=pa.int64(),
        )
        self._names = _Columns(
            raw=pa.string(), language=pa.string(), kind=pa.int8(), record=pa.int64()
        )
        self.count = 0

    def add(self, record: EntityRecord, source: int) -> None:
        """Appends one record of the source with this number."""
        for raw, language, kind in record.names:
            self._names.append(raw, language, KINDS.index(kind), self.count)
        self._entities.append(
            record.id,
            record.label,
            record.description,
            record.types,
            record.image,
            record.enwiki,
            record.sitelinks,
            record.popularity,
            source,
            record.line,
        )
        self.count += 1

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Returns all records, and their names with the record each belongs to."""
        return self._entities.table(), self._names.table()


@dataclass(frozen=True)
class Merged:
    """A knowledge base in memory."""

    entities: pa.Table
    names: pa.Table
    index: NameIndex
    ids: dict[str, np.ndarray]
    """Arrays of the lookup by id, see `store.IdIndex`."""
    seed: int
    max_tokens: int
    num_keys: int
    num_nameless: int
    """Names without a single letter or digit, such as emoji."""
    duplicates: list[tuple[int, int, str]] = field(default_factory=list)
    """(source, line, id) of records whose id their own source had already given."""


class _CollisionError(Exception):
    """Two different names or ids have the same hash under this seed."""


def merge(records: Records, *, sources: list[str], settings: KBSettings) -> Merged:
    """Merges records with equal ids, computes priors, and builds the index.

    Raises:
        InputError: names collide under every seed, which honest data cannot do.
    """
    entities, names = records.tables()
    # Slower than the rest together, and independent of the seed.
    keys = _canonical_column(names["raw"].combine_chunks())
    for seed in range(_MAX_SEEDS):
        try:
            return _merge(entities, names, keys, Hasher(seed), sources, settings)
        except _CollisionError:
            continue
    raise InputError(
        f"Different names have equal hashes under all of {_MAX_SEEDS} seeds; "
        "look for names of thousands of characters and remove them."
    )


def _merge(
    records: pa.Table,
    raw_names: pa.Table,
    keys: pa.StringArray,
    hasher: Hasher,
    sources: list[str],
    settings: KBSettings,
) -> Merged:
    group, keep = _group_by_id(records, hasher)
    entities, row_of_group = _entities(records, group, keep, sources, settings)

    record_of_name = raw_names["record"].to_numpy()
    usable = keep[record_of_name] & (pc.binary_length(keys).to_numpy() > 0)
    num_nameless = int(np.count_nonzero(keep[record_of_name] & ~usable))
    selected = pa.array(np.flatnonzero(usable))
    raw_names, keys = raw_names.take(selected), keys.take(selected)
    rows = row_of_group[group[record_of_name[usable]]]
    names, hashes = _unique_names(raw_names, keys, rows, entities["prior"], hasher, settings)
    index, num_tokens = _index(names, hashes, hasher)

    entities = _with_alias_counts(entities, names)
    ids = entities["id"].combine_chunks()
    return Merged(
        entities=entities.select(ENTITIES.names).cast(ENTITIES),
        names=_sorted_names(names, hashes),
        index=index,
        ids=_id_arrays(ids, hasher),
        seed=hasher.seed,
        max_tokens=int(num_tokens.max(initial=0)),
        num_keys=len(index.hashes),
        num_nameless=num_nameless,
        duplicates=_duplicates(records, keep),
    )


def _canonical_column(raw: pa.StringArray) -> pa.StringArray:
    pieces = [
        canonical_batch(raw[at : at + _FLUSH_ROWS].to_pylist())
        for at in range(0, len(raw), _FLUSH_ROWS)
    ]
    return pa.concat_arrays(pieces) if pieces else raw


def _group_by_id(records: pa.Table, hasher: Hasher) -> tuple[np.ndarray, np.ndarray]:
    """Returns each record's group of equal ids, and which records to keep.

    Of one source the first record of an id is kept; records of other sources are merged with it.
    """
    ids = records["id"].combine_chunks()
    _, first, group = np.unique(hasher.strings(ids), return_index=True, return_inverse=True)
    if not pc.all(pc.equal(ids, ids.take(pa.array(first[group])))).as_py():
        raise _CollisionError
    source = records["source"].to_numpy()
    keep = np.zeros(len(ids), bool)
    keep[np.unique(group * (source.max(initial=0) + 1) + source, return_index=True)[1]] = True
    return group, keep


def _entities(
    records: pa.Table,
    group: np.ndarray,
    keep: np.ndarray,
    sources: list[str],
    settings: KBSettings,
) -> tuple[pa.Table, np.ndarray]:
    """Returns one row per id, most popular first, and the row of every group."""
    _, first = np.unique(group, return_index=True)
    known = ~np.isnan(records["popularity"].fill_null(float("nan")).to_numpy())
    popularity = records["popularity"].fill_null(0).to_numpy()
    popularity = popularity[_first_with(known, group, keep, first)]
    prior = (1 + popularity) ** settings.prior_gamma
    order = np.lexsort((first, -prior))

    filled = {
        "description": pc.not_equal(records["description"], ""),
        "image": pc.not_equal(records["image"], ""),
        "enwiki": pc.not_equal(records["enwiki"], ""),
        "types": pc.greater(pc.list_value_length(records["types"]), 0),
        "sitelinks": pc.greater(records["sitelinks"], 0),
    }
    columns = {name: records[name].take(pa.array(first[order])) for name in ("id", "label")}
    for name, has_value in filled.items():
        pick = _first_with(has_value.to_numpy(), group, keep, first)
        columns[name] = records[name].take(pa.array(pick[order]))
    columns["prior"] = pa.array(prior[order], pa.float32())
    source = records["source"].to_numpy()[first[order]]
    columns["source"] = pa.array(sources).take(pa.array(source))

    row_of_group = np.empty(len(first), np.int64)
    row_of_group[order] = np.arange(len(first))
    return pa.table(columns), row_of_group


def _first_with(
    has_value: np.ndarray, group: np.ndarray, keep: np.ndarray, default: np.ndarray
) -> np.ndarray:
    """Returns for each group its first kept record that has a value, else its first record."""
    having = np.flatnonzero(has_value & keep)
    groups, position = np.unique(group[having], return_index=True)
    pick = default.copy()
    pick[groups] = having[position]
    return pick


def _unique_names(
    names: pa.Table,
    keys: pa.StringArray,
    rows: np.ndarray,
    prior: pa.ChunkedArray,
    hasher: Hasher,
    settings: KBSettings,
) -> tuple[pa.Table, np.ndarray]:
    """Returns one row per (key, entity), in order of hashes, and the hashes."""
    hashes = hasher.strings(keys)
    kind_weight = np.array([1.0, 1.0, settings.alias_weight])[names["kind"].to_numpy()]
    order = np.lexsort((-kind_weight, rows, hashes))
    hashes, rows = hashes[order], rows[order]
    names, keys = names.take(pa.array(order)), keys.take(pa.array(order))
    same_key = hashes[1:] == hashes[:-1]
    if np.any(same_key & pc.not_equal(keys[1:], keys[:-1]).to_numpy(zero_copy_only=False)):
        raise _CollisionError

    new = np.ones(len(hashes), bool)
    new[1:] = ~(same_key & (rows[1:] == rows[:-1]))
    chosen = np.flatnonzero(new)
    names = names.take(pa.array(chosen))
    rows = rows[chosen]
    weight = kind_weight[order][chosen] * prior.to_numpy()[rows]
    table = {
        "key": keys.take(pa.array(chosen)),
        "raw": names["raw"],
        "language": names["language"],
        "kind": pa.array(KINDS).take(names["kind"]),
        "entity": pa.array(rows, pa.int32()),
        "weight": pa.array(weight, pa.float32()),
    }
    return pa.table(table, schema=NAMES), hashes[chosen]


def _index(names: pa.Table, hashes: np.ndarray, hasher: Hasher) -> tuple[NameIndex, np.ndarray]:
    keys = names["key"].combine_chunks()
    first_tokens = pc.list_element(pc.split_pattern(keys, " ", max_splits=1), 0)
    num_tokens = pc.count_substring(keys, " ").to_numpy() + 1
    index = build_index(
        hashes,
        names["entity"].to_numpy(),
        names["weight"].to_numpy(),
        first_hashes=hasher.strings(first_tokens),
        num_tokens=num_tokens,
    )
    return index, num_tokens


def _sorted_names(names: pa.Table, hashes: np.ndarray) -> pa.Table:
    """Sorts by key, then weight; sorting distinct keys once is cheaper than sorting rows."""
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    distinct = names["key"].take(pa.array(first))
    rank = np.empty(len(first), np.int64)
    rank[pc.sort_indices(distinct).to_numpy()] = np.arange(len(first))
    weight = names["weight"].to_numpy()
    return names.take(pa.array(np.lexsort((names["entity"].to_numpy(), -weight, rank[group]))))


def _with_alias_counts(entities: pa.Table, names: pa.Table) -> pa.Table:
    of_alias = names["entity"].to_numpy()[pc.equal(names["kind"], "alias").to_numpy()]
    counts = np.bincount(of_alias, minlength=len(entities))
    return entities.append_column("num_aliases", pa.array(counts, pa.int32()))


def _id_arrays(ids: pa.StringArray, hasher: Hasher) -> dict[str, np.ndarray]:
    hashes = hasher.strings(ids)
    order = np.argsort(hashes)
    _, offsets, data = pa.concat_arrays([ids]).buffers()
    return {
        "id_hashes": hashes[order],
        "id_rows": order.astype(np.int32),
        "id_offsets": np.frombuffer(offsets, np.int32)[: len(ids) + 1],
        "id_bytes": np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8),
    }


def _duplicates(records: pa.Table, keep: np.ndarray) -> list[tuple[int, int, str]]:
    again = records.take(pa.array(np.flatnonzero(~keep)))
    columns = (again[name].to_pylist() for name in ("source", "line", "id"))
    return list(zip(*columns, strict=True))
