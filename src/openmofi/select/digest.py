"""What a selection is known by: a hash of its labels, however its files are written."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

AUDITS = "audits"
"""Folder in a selection with the audits of it, one folder each, see review/audit/."""
_COLUMNS = {
    "keep.parquet": ["shard", "key", "url", "classes", "scores"],
    "vocabulary.parquet": ["id", "images"],
}
_ROWS = 100_000


def selection_digest(folder: Path) -> str:
    """Returns a sha256 in hex; the same labels of the same images in the same order have the same.

    Args:
        folder: output of `select`.
    """
    hashes: defaultdict[tuple[str, ...], Any] = defaultdict(hashlib.sha256)
    for name, columns in _COLUMNS.items():
        with pq.ParquetFile(folder / name) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                for column in columns:
                    for part, values in _parts(batch[column]).items():
                        hashes[name, column, part].update(np.ascontiguousarray(values))
    whole = hashlib.sha256()
    for place in sorted(hashes):
        whole.update("/".join(place).encode() + b"\0" + hashes[place].digest())
    return whole.hexdigest()


def _parts(column: pa.Array) -> dict[str, np.ndarray]:
    """Returns the lengths and the values of strings or lists, or the values of numbers.

    Those of consecutive batches add up to those of the whole, wherever it is cut.
    """
    if pa.types.is_list(column.type):
        lengths = pc.list_value_length(column).fill_null(-1).to_numpy()
        return {"lengths": lengths, "values": column.flatten().fill_null(0).to_numpy()}
    if not pa.types.is_string(column.type):
        return {"values": column.fill_null(0).to_numpy()}
    lengths = pc.binary_length(column).fill_null(-1).to_numpy()
    text = column.fill_null("")
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    values = np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]]
    return {"lengths": lengths, "values": values}
