"""SplitMix64's finaliser, which makes each of 64 bits depend on all the others.

Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195. The hashes of names and the keys of random
numbers are built on it and stored on disk: nothing here may ever change.
"""

import numpy as np

from openmofi.arrays.compiled import compiled

GOLDEN, MIX1, MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
MASK64 = (1 << 64) - 1


def finalise_int(value: int) -> int:
    """Returns the mixed bits of a number below 2^64."""
    value = ((value ^ (value >> 30)) * MIX1) & MASK64
    value = ((value ^ (value >> 27)) * MIX2) & MASK64
    return value ^ (value >> 31)


def finalise(values: np.ndarray) -> np.ndarray:
    """Mixes an array of uint64 in place and returns it."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(MIX1)
    values ^= values >> np.uint64(27)
    values *= np.uint64(MIX2)
    values ^= values >> np.uint64(31)
    return values


@compiled
def finalise_one(value):
    """Returns the mixed bits of one uint64; compiled."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(MIX1)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(MIX2)
    return value ^ (value >> np.uint64(31))
