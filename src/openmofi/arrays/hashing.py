"""A 64-bit hash of names, our own so that an index on disk outlives library versions.

H(bytes) = mix(sum of byte[j] * BASE^j mod 2^64), with SplitMix64's finaliser as mix. One
cumulative sum over a buffer gives the hashes of all its substrings: (S[end] - S[start]) *
BASE^-start. Each n-gram of a batch of captions thus costs one subtraction, one multiplication
and the finaliser.
"""

import threading

import numpy as np
import pyarrow as pa

from openmofi.arrays.splitmix64 import GOLDEN, finalise, finalise_int

HASH_VERSION = 1
"""Stored with every knowledge base; raise it whenever a hash changes."""

_MODULUS = 2**64
_CHUNK = 4096
"""Strings hashed together: few enough for the cache, and for the tables of powers to stay small."""
_EXTENDING = threading.Lock()
"""Held while a Hasher extends its powers, which several threads may use."""


class Hasher:
    """Hashes substrings of byte buffers under one seed; keeps the powers of the base."""

    def __init__(self, seed: int):
        self.seed = seed
        # A base of 5 mod 8 has the longest possible period, 2^62.
        base = (finalise_int((seed + 1) * GOLDEN % _MODULUS) & ~7) | 5
        self._base, self._inverse = base, pow(base, -1, _MODULUS)
        self._powers = self._inverse_powers = np.ones(1, np.uint64)

    def powers(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns BASE^i and BASE^-i for i up to at least `length`, for compiled functions."""
        self._reach(length + 1)
        return self._powers, self._inverse_powers

    def prefix_sums(self, buffer: np.ndarray) -> np.ndarray:
        """Returns S, one longer than the buffer: S[i] sums byte[j] * BASE^j over j < i."""
        self._reach(len(buffer) + 1)
        sums = np.zeros(len(buffer) + 1, np.uint64)
        np.cumsum(buffer * self._powers[: len(buffer)], out=sums[1:])
        return sums

    def spans(self, buffer: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Returns the hashes of buffer[start:end]."""
        sums = self.prefix_sums(buffer)
        return finalise((sums[end] - sums[start]) * self._inverse_powers[start])

    def strings(self, strings: pa.StringArray) -> np.ndarray:
        """Returns the hash of every string."""
        starts = range(0, len(strings), _CHUNK)
        hashes = [self._chunk(strings[at : at + _CHUNK]) for at in starts]
        return np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)

    def _chunk(self, strings: pa.StringArray) -> np.ndarray:
        _, offsets, data = strings.buffers()
        ends = np.frombuffer(offsets, np.int32)[strings.offset : strings.offset + len(strings) + 1]
        low, high = int(ends[0]), int(ends[-1])
        buffer = np.frombuffer(data, np.uint8)[low:high] if data else np.zeros(0, np.uint8)
        ends = ends - low
        return self.spans(buffer, ends[:-1], ends[1:])

    def _reach(self, length: int) -> None:
        """Extends the tables of powers to at least `length` by doubling."""
        if len(self._powers) >= length:
            return
        with _EXTENDING:
            while len(self._powers) < length:
                size = len(self._powers)
                for name, base in (("_inverse_powers", self._inverse), ("_powers", self._base)):
                    table = getattr(self, name)
                    factor = np.uint64(pow(base, size, _MODULUS))
                    setattr(self, name, np.concatenate([table, table * factor]))
