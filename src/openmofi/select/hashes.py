"""Columns of hashes -> arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def digests(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the first half of each sha256 as two integers, whether there is a hash).

    Args:
        column: binary(32).

    Returns:
        uint64 [n, 2], 0 where there is no hash; and bool [n].
    """
    known = column.is_valid().to_numpy()
    halves = []
    for chunk in column.chunks:  # of fixed size: the values are contiguous
        words = np.frombuffer(chunk.buffers()[1], np.uint64) if len(chunk) else np.zeros(0, "u8")
        halves.append(words.reshape(-1, 4)[chunk.offset : chunk.offset + len(chunk), :2])
    whole = np.concatenate(halves) if halves else np.zeros((0, 2), np.uint64)
    return np.where(known[:, None], whole, np.uint64(0)), known
