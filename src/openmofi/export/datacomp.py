"""Kept images -> the list of uids that defines a subset of DataComp's pool.

DataComp (https://github.com/mlfoundations/datacomp) expects a sorted .npy of dtype u8,u8: the two
halves of each 128-bit uid. The uids come from the column `uid` of the tars' Parquet sidecars or of
the Parquet shards themselves, or from an image's .json, in the tar or beside it, or else from a key
that is a uid.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.errors import InputError
from openmofi.export.samples import Selected
from openmofi.files.remote import open_root
from openmofi.pairs.records import RecordReader

_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
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
    records = RecordReader(open_root(root), ("uid",))

    def uid_of(row: dict[str, Any]) -> str | None:
        text = str(records(row).get("uid", row["key"]))
        return text if _UID.fullmatch(text) else None

    return uid_of
