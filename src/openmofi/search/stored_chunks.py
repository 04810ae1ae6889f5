"""A part's stored vectors, chunk by chunk, and when to keep what was made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
from jaxtyping import Float

_AT_ONCE = 2_000
"""Vectors added to a graph or to lists at a time."""
_KEEP_EVERY_SECONDS = 60.0

Halves = Float[np.ndarray, "n dim"]
"""The stored vectors, float16, mapped into memory."""


def chunks(vectors: Float[np.ndarray, "n dim"]) -> Iterator[Float[np.ndarray, "_ dim"]]:
    """Yields the vectors, some at a time."""
    for begin in range(0, len(vectors), _AT_ONCE):
        yield vectors[begin : begin + _AT_ONCE]


def digest_of(vectors: Float[np.ndarray, "n dim"]) -> str:
    """Returns what tells these vectors from others."""
    digest = blake2b(digest_size=16)
    for chunk in chunks(vectors):
        digest.update(chunk.tobytes())
    return digest.hexdigest()


def is_due(kept: float) -> bool:
    """Returns whether an unfinished step should be kept, last kept at a time of the clock."""
    return time.monotonic() - kept >= _KEEP_EVERY_SECONDS
