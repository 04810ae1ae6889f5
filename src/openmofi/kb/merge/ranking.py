"""Finds out which records are one entity, and ranks the entities: stage 1 of the merge.

In: the part files of all sources. Out: for every record, in the order of reading, the row of its
entity; and the priors by row. Records with equal ids in different sources are one entity; within
one source, only the first counts.

The prior of an entity is (1 + popularity)^gamma, where popularity is its sitelinks or its weight in
the catalogue. Rows are sorted by falling prior, then by the order of reading. If the highest prior
exceeds 1e30, all are scaled down, so that float32 can hold them and their sums. Memory: 8 bytes a
record.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.kb.merge.sorting import BATCH_ROWS, Database, whole_groups
from openmofi.kb.read.parts import PartFiles

_RECORDS = pa.schema(
    [("id", pa.string()), ("record", pa.int32()), ("source", pa.int16()), ("popularity", "f8")]
)
_LEADERS = pa.schema([("prior", pa.float64()), ("record", pa.int32())])
_MAX_PRIOR = 1e30
_LEADER = np.dtype([("prior", np.float64), ("record", np.int32)])


@dataclass(frozen=True)
class Ranking:
    """Records -> rows."""

    row_of_record: np.ndarray
    """int32; -1 for repeats of an id within one source."""
    prior: np.ndarray
    """float32 by row, falling."""

    def __len__(self) -> int:
        return len(self.prior)


def rank(parts: Sequence[PartFiles], database: Database, folder: Path, gamma: float) -> Ranking:
    """Ranks the entities of all sources.

    Args:
        parts: the part files, one per source.
        database: sorts the entities.
        folder: folder for a temporary file.
        gamma: exponent of the prior.
    """
    num_records = sum(files.done.num_entities for files in parts)
    row_of_record = np.full(num_records, -1, np.int32)
    others: list[tuple[np.ndarray, np.ndarray]] = []
    with (folder / "leaders").open("wb") as file:
        ordered = database.sorted(_records(parts), _RECORDS, "id, record")
        for table, starts in whole_groups(ordered, "id"):
            leaders, merged = _leaders(table, starts, gamma)
            leaders.tofile(file)
            others.append(merged)

    priors, row, scale = [np.zeros(0, np.float32)], 0, 1.0
    ordered = database.sorted(_read_leaders(folder / "leaders"), _LEADERS, "prior DESC, record")
    for batch in ordered:
        row_of_record[batch["record"].to_numpy()] = np.arange(row, row + len(batch))
        prior = batch["prior"].to_numpy()
        if not row:
            scale = max(float(prior[0]) / _MAX_PRIOR, 1.0)
        priors.append(np.maximum(prior / scale, 1 / _MAX_PRIOR).astype(np.float32))
        row += len(batch)
    for record, leader in others:
        row_of_record[record] = row_of_record[leader]
    return Ranking(row_of_record, np.concatenate(priors))


def _records(parts: Sequence[PartFiles]) -> Iterator[pa.RecordBatch]:
    number = 0
    for source, files in enumerate(parts):
        for batch in files.entities():
            records = np.arange(number, number + len(batch), dtype=np.int32)
            columns = [
                batch["id"],
                pa.array(records),
                pa.array(np.full(len(batch), source, np.int16)),
                batch["popularity"],
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=_RECORDS)
            number += len(batch)


def _leaders(
    table: pa.Table, starts: np.ndarray, gamma: float
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Returns the first record of every id with its prior, and (record, leader) of merged ones."""
    record, source = table["record"].to_numpy(), table["source"].to_numpy()
    popularity = pc.fill_null(table["popularity"], float("nan")).to_numpy()
    first = np.zeros(len(table), bool)
    first[starts] = True
    kept = first.copy()
    kept[1:] |= source[1:] != source[:-1]

    # A merged entity gets its popularity from the first source that knows it.
    known = np.where(kept & ~np.isnan(popularity), np.arange(len(table)), len(table))
    at = np.minimum.reduceat(known, starts)
    value = np.append(popularity, 0)[at]
    leaders = np.empty(len(starts), _LEADER)
    leaders["record"] = record[starts]
    leaders["prior"] = (1 + value) ** gamma

    merged = np.flatnonzero(kept & ~first)
    group = np.searchsorted(starts, merged, side="right") - 1
    return leaders, (record[merged], record[starts[group]])


def _read_leaders(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        while len(leaders := np.fromfile(file, _LEADER, BATCH_ROWS)):
            columns = [pa.array(np.ascontiguousarray(leaders[name])) for name in _LEADERS.names]
            yield pa.RecordBatch.from_arrays(columns, schema=_LEADERS)
