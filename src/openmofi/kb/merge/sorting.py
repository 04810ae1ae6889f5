"""Sorts streams of any length in little memory: DuckDB sorts and spills to disk, Arrow streams.

In: record batches from a generator. Out: the same rows in order, as record batches. Strings are
ordered by their bytes (DuckDB's default collation), as everywhere in a knowledge base.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.mapped import one_chunk

MEMORY = "400MB"
"""Memory limit of DuckDB, which exceeds it somewhat."""
_THREADS = 2
BATCH_ROWS = 1 << 16


class Database:
    """A DuckDB that lives as long as a merge."""

    def __init__(self, folder: Path):
        import duckdb

        config: dict[str, Any] = {
            "memory_limit": MEMORY,
            "threads": _THREADS,
            "temp_directory": str(folder / "spilled"),
            "preserve_insertion_order": False,  # every query below states its order
        }
        self._connection = duckdb.connect(config=config)
        self.advance: Callable[[int], object] = int
        """Called with the number of rows of every batch that enters or leaves."""

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def create(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        """Creates a table from a stream."""
        self._register("incoming", batches, schema)
        self._connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
        self._connection.unregister("incoming")

    def execute(self, statement: str) -> None:
        """Runs a statement without a result."""
        self._connection.execute(statement)

    def query(self, query: str) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a query."""
        return self._counted(self._connection.sql(query).to_arrow_reader(BATCH_ROWS))

    def sorted(
        self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, order: str
    ) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a stream in the order of an ORDER BY clause."""
        self._register("unsorted", batches, schema)
        yield from self.query(f"SELECT * FROM unsorted ORDER BY {order}")
        self._connection.unregister("unsorted")

    def _register(self, name: str, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        reader = pa.RecordBatchReader.from_batches(schema, self._counted(batches))
        self._connection.register(name, reader)

    def _counted(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.advance(len(batch))
            yield batch


def whole_groups(
    batches: Iterable[pa.RecordBatch], column: str
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Yields (table, where its groups start); a group has equal values in a sorted column.

    No group is split between two tables.
    """
    carried: list[pa.RecordBatch] = []
    for batch in batches:
        if not len(batch):
            continue
        table = pa.Table.from_batches([*carried, batch]).combine_chunks()
        starts = group_starts(table[column])
        last = int(starts[-1])
        if last:
            yield table.slice(0, last), starts[:-1]
        # A copy: a slice would keep the whole batch in memory.
        carried = table.take(pa.array(np.arange(last, len(table)))).combine_chunks().to_batches()
    if carried:
        yield pa.Table.from_batches(carried).combine_chunks(), np.zeros(1, np.int64)


def group_starts(values: pa.ChunkedArray) -> np.ndarray:
    """Returns the positions of values that differ from the one before them."""
    array = one_chunk(values)
    new = np.ones(len(array), bool)
    new[1:] = pc.not_equal(array[1:], array[:-1]).to_numpy(zero_copy_only=False)
    return np.flatnonzero(new)


class TableWriter:
    """Writes a Parquet file whose row groups do not depend on how the rows arrive."""

    def __init__(self, path: Path, schema: pa.Schema, *, rows_per_group: int):
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema, self._rows = schema, rows_per_group
        self._pending: list[pa.Table] = []
        self._num_pending = 0
        self.num_rows = 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._num_pending:
            self._flush(self._num_pending)
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Appends rows."""
        self._pending.append(table)
        self._num_pending += len(table)
        self.num_rows += len(table)
        while self._num_pending >= self._rows:
            self._flush(self._rows)

    def _flush(self, count: int) -> None:
        whole = pa.concat_tables(self._pending)
        group = whole.slice(0, count).combine_chunks()
        self._writer.write_table(group.cast(self._schema), row_group_size=count)
        self._pending = [whole.slice(count)]
        self._num_pending -= count
