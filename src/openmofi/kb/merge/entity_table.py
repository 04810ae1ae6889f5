"""Writes entities.parquet: stage 3 of the merge.

In: entities from the part files, their rows, their numbers of aliases. Out: one row per entity. An
entity of several sources gets the label of the first and every other field from the first source
that has it.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.kb.merge.ranking import Ranking
from openmofi.kb.merge.sorting import Database, TableWriter, whole_groups
from openmofi.kb.read.parts import ENTITY_PARTS, PartFiles
from openmofi.schema import ENTITIES

_ROWS_PER_GROUP = 1 << 14
_SORTED = pa.schema(
    [
        ("row", pa.int32()),
        ("record", pa.int32()),
        ("source", pa.int16()),
        *[field for field in ENTITY_PARTS if field.name not in ("popularity", "line")],
    ]
)


def _has_text(column: pa.ChunkedArray) -> np.ndarray:
    return pc.not_equal(column, "").to_numpy()


def _has_items(column: pa.ChunkedArray) -> np.ndarray:
    return pc.greater(pc.list_value_length(column), 0).to_numpy()


def _is_positive(column: pa.ChunkedArray) -> np.ndarray:
    return pc.greater(column, 0).to_numpy()


# Tells whether a source has a value; every source has an id and a label.
_HAS_VALUE: dict[str, Callable[[pa.ChunkedArray], np.ndarray]] = {
    "description": _has_text,
    "types": _has_items,
    "subclass_of": _has_items,
    "image": _has_text,
    "enwiki": _has_text,
    "sitelinks": _is_positive,
    "statements": _is_positive,
}


def write_entities(
    path: Path,
    parts: Sequence[PartFiles],
    ranking: Ranking,
    num_aliases: np.ndarray,
    database: Database,
    *,
    sources: Sequence[str],
    refuse: Callable[[int, int, str], None],
) -> None:
    """Writes entities.parquet.

    Args:
        path: path of entities.parquet.
        parts: the part files, one per source.
        ranking: rows and priors.
        num_aliases: number of aliases by row.
        database: sorts the entities.
        sources: names of the sources.
        refuse: called with source number, line and id of every repeat of an id within one source.
    """
    ordered = database.sorted(_with_rows(parts, ranking, refuse), _SORTED, "row, record")
    done = 0
    with TableWriter(path, ENTITIES, rows_per_group=_ROWS_PER_GROUP) as writer:
        for table, starts in whole_groups(ordered, "row"):
            here = slice(done, done + len(starts))
            done += len(starts)
            columns = _merged(table, starts)
            columns["num_aliases"] = pa.array(num_aliases[here])
            columns["prior"] = pa.array(ranking.prior[here])
            source = pa.array(table["source"].to_numpy()[starts])
            columns["source"] = pa.array(sources).take(source)
            writer.write(pa.table({name: columns[name] for name in ENTITIES.names}))


def _with_rows(
    parts: Sequence[PartFiles], ranking: Ranking, refuse: Callable[[int, int, str], None]
) -> Iterator[pa.RecordBatch]:
    """Yields the entities as batches of _SORTED, without repeats of an id within one source."""
    number = 0
    for source, files in enumerate(parts):
        for batch in files.entities():
            row = ranking.row_of_record[number : number + len(batch)]
            record = np.arange(number, number + len(batch), dtype=np.int32)
            number += len(batch)
            for i in np.flatnonzero(row < 0).tolist():
                refuse(source, batch["line"][i].as_py(), batch["id"][i].as_py())
            columns = {
                "row": pa.array(row),
                "record": pa.array(record),
                "source": pa.array(np.full(len(batch), source, np.int16)),
            }
            rest = {name: batch[name] for name in _SORTED.names if name not in columns}
            ranked = pa.RecordBatch.from_pydict({**columns, **rest}, schema=_SORTED)
            yield ranked.filter(pa.array(row >= 0))


def _merged(table: pa.Table, starts: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """Returns the columns of one row per group."""
    if len(starts) == len(table):
        return {name: table[name] for name in ("id", "label", *_HAS_VALUE)}
    columns = {name: table[name].take(pa.array(starts)) for name in ("id", "label")}
    for name, has_value in _HAS_VALUE.items():
        position = np.where(has_value(table[name]), np.arange(len(table)), len(table))
        found = np.minimum.reduceat(position, starts)
        at = np.where(found < len(table), found, starts)
        columns[name] = table[name].take(pa.array(at))
    return columns
