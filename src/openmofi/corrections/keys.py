"""Names and entities as 64-bit numbers, the same whatever knowledge base they come from."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.splitmix64 import GOLDEN, finalise
from openmofi.kb.text import canonical_batch

_HASHER = Hasher(0)


def text_keys(texts: pa.StringArray) -> np.ndarray:
    """Returns uint64 for each text."""
    return _HASHER.strings(texts.cast(pa.string()))


def name_keys(surfaces: pa.StringArray) -> np.ndarray:
    """Returns uint64 for each name by its canonical form; each distinct one is looked at once."""
    distinct = surfaces.dictionary_encode()
    of_distinct = text_keys(canonical_batch(distinct.dictionary))
    return of_distinct[distinct.indices.to_numpy()]


def pair_keys(names: np.ndarray, entities: np.ndarray) -> np.ndarray:
    """Returns uint64 for each name and entity, given the keys of both."""
    return finalise(entities + names * np.uint64(GOLDEN))


def find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (the place of each wanted key among sorted ones, whether it is there)."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted
