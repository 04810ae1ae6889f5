"""Labels of types that are no entities of the knowledge base: classes.parquet.

An item that images cannot show, such as a class without an article, is left out of a knowledge
base; but entities are instances of it, and people want to read "sovereign state", not an id.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.kb.ids import Ids

CLASSES = "classes.parquet"
_SCHEMA = pa.schema([("id", pa.string()), ("label", pa.string())])


def write_classes(folder: Path, classes: Iterable[pa.RecordBatch], ids: Ids) -> None:
    """Writes the labels of those classes that are types of entities, but no entities themselves.

    Args:
        folder: the knowledge base, with its entities.parquet.
        classes: id and label of what was left out; of several labels the first one counts.
        ids: the ids of the entities.
    """
    wanted = _types(folder / "entities.parquet")
    if len(wanted):
        wanted = wanted.filter(pa.array(ids.rows(wanted) < 0))
    found: dict[str, str] = {}
    for batch in classes:
        mine = batch.filter(pc.is_in(batch["id"], wanted))
        for row in mine.to_pylist():
            found.setdefault(row["id"], row["label"])
    rows = sorted(found.items())
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in (0, 1)]
    pq.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), folder / CLASSES)


def read_classes(folder: Path) -> dict[str, str]:
    """Returns the labels by id; none for knowledge bases of earlier versions."""
    if not (folder / CLASSES).is_file():
        return {}
    table = pq.read_table(folder / CLASSES)
    return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))


def _types(path: Path) -> pa.Array:
    """Returns the ids of all types of entities, each once."""
    found = pa.array([], pa.string())
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            types = file.read_row_group(group, ["types"])["types"].combine_chunks().flatten()
            found = pc.unique(pa.concat_arrays([found, types.unique()]))
    return found.filter(pa.array(np.array(pc.binary_length(found)) > 0))
