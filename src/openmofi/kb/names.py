"""Reads names.parquet for people: the names of a key, of a prefix, of an entity.

In: the file, sorted by key. Out: tables of `schema.NAMES`. Only row groups that can hold the answer
are read, so a lookup among 50 million names takes milliseconds.
"""

from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.schema import NAMES


class NameTable:
    """The names of a knowledge base."""

    def __init__(self, path: Path):
        self._path = path
        self._group = lru_cache(maxsize=8)(self._read_group)

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._path)

    def _read_group(self, number: int) -> pa.Table:
        return self._file.read_row_group(number)

    @cached_property
    def _bounds(self) -> list[tuple[str, str]]:
        """First and last key of every row group."""
        column = NAMES.get_field_index("key")
        metadata = self._file.metadata
        bounds = []
        for i in range(metadata.num_row_groups):
            known = metadata.row_group(i).column(column).statistics
            if known is not None and known.has_min_max:
                bounds.append((known.min, known.max))
            else:
                keys = self._file.read_row_group(i, columns=["key"])["key"]
                bounds.append((keys[0].as_py(), keys[-1].as_py()))
        return bounds

    def all_keys(self) -> Iterator[pa.StringArray]:
        """Yields all canonical names in batches; a name of several entities is repeated."""
        for batch in self._file.iter_batches(columns=["key"]):
            yield batch.column(0)

    def of_key(self, key: str) -> pa.Table:
        """Returns the rows of one canonical name, most probable entity first."""
        tables = [
            self._group(i).filter(pc.field("key") == key)
            for i, (low, high) in enumerate(self._bounds)
            if low.encode() <= key.encode() <= high.encode()
        ]
        return pa.concat_tables([NAMES.empty_table(), *tables])

    def keys_with_prefix(self, prefix: str, limit: int) -> list[str]:
        """Returns the canonical names with a prefix, in order, from at most `limit` rows."""
        found = NAMES.empty_table()
        for i, (low, high) in enumerate(self._bounds):
            if high.encode() >= prefix.encode() and (low <= prefix or low.startswith(prefix)):
                mask = pc.starts_with(pc.field("key"), prefix)
                found = pa.concat_tables([found, self._group(i).filter(mask)])
            if len(found) >= limit:
                break
        return list(dict.fromkeys(found["key"][:limit].to_pylist()))

    def of_entity(self, row: int) -> pa.Table:
        """Returns the names of an entity, highest weight first."""
        tables = [NAMES.empty_table()]
        for i in range(self._file.num_row_groups):
            entities = self._file.read_row_group(i, columns=["entity"])["entity"]
            if pc.any(pc.equal(entities, row)).as_py():
                tables.append(self._read_group(i).filter(pc.field("entity") == row))
        return pa.concat_tables(tables).sort_by([("weight", "descending")])
