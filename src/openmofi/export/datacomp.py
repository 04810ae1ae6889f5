"""Kept images -> the list of uids that defines a subset of DataComp's pool.

DataComp (https://github.com/mlfoundations/datacomp) expects a sorted .npy of dtype u8,u8: the two
halves of each 128-bit uid. The uids come from the column `uid` of the tars' Parquet sidecars or of
the Parquet shards themselves, or from an image's .json, or else from a key that is a uid.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.export.samples import Selected
from openmofi.files.remote import Root, open_root
from openmofi.pairs.folder import record_beside

_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_KEYS = ("key", "id")
UIDS = np.dtype([("f0", "u8"), ("f1", "u8")])


def write_datacomp(selected: Selected, folder: Path) -> int:
    """Writes uids.npy; returns the number of uids.

    Raises:
        InputError: some images have no uid.
    """
    uid_of = _lookup(selected.root)
    high, low, missing = array("Q"), array("Q"), []
    for row in selected.rows(["key", "shard", "path"]):
        uid = uid_of(row)
        if uid is None:
            missing.append(row["key"])
        else:
            high.append(int(uid[:16], 16))
            low.append(int(uid[16:], 16))
    if missing:
        raise InputError(
            f"{len(missing):,} of {len(missing) + len(high):,} kept images have no uid of 32 hex "
            f"digits, such as the one with the key {missing[0]!r}; expected a column uid in the "
            "Parquet file of each tar (or in the Parquet shard), or such keys: export with "
            "--format webdataset or huggingface instead."
        )
    uids = np.empty(len(high), UIDS)
    uids["f0"], uids["f1"] = high, low
    uids = np.unique(uids)  # sorted by f0, then f1
    np.save(folder / "uids.npy", uids)
    return len(uids)


def _lookup(root: str) -> Callable[[dict[str, Any]], str | None]:
    """Returns a function: row of keep.parquet -> its uid, or None."""
    place = open_root(root)

    @lru_cache(maxsize=2)  # rows come shard by shard
    def uids(shard: str) -> tuple[list[Any], dict[str, Any]]:
        return _read_uids(place, shard) if shard else ([], {})

    def uid_of(row: dict[str, Any]) -> str | None:
        by_row, by_key = uids(row["shard"])
        if row["path"].startswith("row:") and by_row:
            found = by_row[int(row["path"][4:])]
        elif not row["shard"] and isinstance(place, Path):
            found = record_beside(place, os.fsencode(row["path"])).get("uid")
        else:
            found = by_key.get(row["key"])
        text = str(row["key"] if found is None else found)
        return text if _UID.fullmatch(text) else None

    return uid_of


def _read_uids(root: Root, shard: str) -> tuple[list[Any], dict[str, Any]]:
    """Returns (uids of a shard by row, by key), empty if no Parquet file contains them."""
    file = root / str(PurePosixPath(shard).with_suffix(".parquet"))
    if not file.exists():
        return [], {}
    source = file if isinstance(file, Path) else pa.BufferReader(file.read())
    try:
        with pq.ParquetFile(source) as table_file:
            names = table_file.schema_arrow.names
            key = next((name for name in _KEYS if name in names), None)
            if "uid" not in names:
                return [], {}
            table = table_file.read(["uid", key] if key else ["uid"])
    except pa.ArrowInvalid:
        return [], {}
    uids = table["uid"].to_pylist()
    keys = [str(value) for value in table[key].to_pylist()] if key else []
    return uids, dict(zip(keys, uids, strict=False))
