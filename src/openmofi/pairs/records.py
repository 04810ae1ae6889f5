"""What img2dataset and DataComp note of an image beside its caption: rows of pairs -> records.

The Parquet file of a shard says it, else the .json of a tar's sample, or that beside an image.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.files.remote import Root
from openmofi.pairs.folder import record_beside
from openmofi.pairs.tar_shard import read_records as read_tar_records

_KEYS = ("key", "id")


class RecordReader:
    """Finds records of images; rows should come shard by shard."""

    def __init__(self, root: Root, names: tuple[str, ...]):
        """Stores where to look.

        Args:
            root: folder of the shards.
            names: columns, or names in a .json, that are wanted.
        """
        self.root, self.names = root, names
        self._shard = lru_cache(maxsize=2)(self._open)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns what is known of an image; what is not known is left out.

        Args:
            row: with key, shard and path.
        """
        if not row["shard"]:
            if not isinstance(self.root, Path):
                return {}
            return self._wanted(record_beside(self.root, os.fsencode(row["path"])))
        by_row, by_key = self._shard(row["shard"])
        if row["path"].startswith("row:") and by_row:
            return by_row[int(row["path"][4:])]
        return by_key.get(row["key"], {})

    def _open(self, shard: str) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
        """Returns a shard's records by row and by key."""
        table, key = self._table_beside(shard)
        if table is not None:
            records = [self._wanted(row) for row in table.to_pylist()]
            keys = [str(value) for value in table[key].to_pylist()] if key else []
            return records, dict(zip(keys, records, strict=False))
        path = self.root / shard
        if shard.endswith(".tar") and isinstance(path, Path):
            records = read_tar_records(path).items()
            return [], {key: self._wanted(record) for key, record in records}
        return [], {}

    def _table_beside(self, shard: str) -> tuple[pa.Table | None, str | None]:
        """Returns a shard's Parquet file, if it has a wanted column, and its column of keys."""
        file = self.root / str(PurePosixPath(shard).with_suffix(".parquet"))
        if not file.exists():
            return None, None
        source = file if isinstance(file, Path) else pa.BufferReader(file.read())
        try:
            with pq.ParquetFile(source) as opened:
                known = opened.schema_arrow.names
                key = next((name for name in _KEYS if name in known), None)
                wanted = [name for name in self.names if name in known]
                if not wanted:
                    return None, None
                return opened.read(list(dict.fromkeys([*wanted, *([key] if key else [])]))), key
        except pa.ArrowInvalid:
            return None, None

    def _wanted(self, record: dict[str, Any]) -> dict[str, Any]:
        return {name: record[name] for name in self.names if record.get(name) is not None}
