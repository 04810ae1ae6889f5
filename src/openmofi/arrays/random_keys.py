"""A seed, a purpose and numbers -> the 64-bit key of one stream of random numbers.

Every random draw of a run is keyed here, so that no two purposes share a stream and any integer
can be a seed.
"""

from __future__ import annotations

import operator
from enum import IntEnum

import numpy as np

from openmofi.arrays.splitmix64 import GOLDEN, MASK64, MIX2, finalise, finalise_int

DRAWS_VERSION = 3
"""Stored with every checkpoint; raise it whenever the same seed draws something else."""


class Purpose(IntEnum):
    """What random numbers are for; a number is never given to a second purpose."""

    WEIGHTS = 1
    DROPOUT = 2
    ORDER = 3
    HELD_OUT = 4
    CHANGES = 5
    """How images are augmented, and which text, entity and teacher's version a step takes."""
    TEACHER = 6
    CLASSES = 7
    CLASS_ROWS = 8
    ADAPT_SPLIT = 9
    ADAPT_ORDER = 10
    ADAPT_TEXTS = 11
    MAP = 12
    BACKGROUND = 13
    MISMATCHED = 14
    """Which images of something else a mention is compared with."""
    CAP = 15
    """Which images are kept of an entity that has too many."""
    PAIR_ORDER = 16
    PAIR_TEXTS = 17
    PAIR_HELD_OUT = 18
    HELD_OUT_ENTITIES = 19
    FUSION_HELD_OUT = 20
    FUSION_ORDER = 21
    FUSION_STEP = 22
    """Weights of new layers, and what each step leaves out."""
    FUSION_DESCRIPTIONS = 23
    TOKENIZER_TEXTS = 24
    """From which captions a tokenizer is learnt, where there are very many."""
    SELECT_SAMPLE = 25
    """Which pairs the weights of a selection, and its priors, are learnt from."""
    OPERATIONS = 26
    """Which operations of RandAugment change an image."""
    SYNTHETIC = 27
    """Which of an image's synthetic captions a step takes."""
    AUDIT = 28
    """Which labels of a selection a person checks."""
    PRESENCE = 29
    """From which entities and images an index learns to say that something is not there."""
    MISSING = 30
    """Which refused images are looked at for what the catalogue lacks."""


def random_key(seed: int, purpose: Purpose, *numbers: int) -> int:
    """Returns 64 bits that depend on the seed, the purpose and every number."""
    return mix_integers(seed, purpose, *numbers)


def mix_integers(*numbers: int) -> int:
    """Returns 64 bits that depend on all the numbers, of any size and sign.

    A number is a list of words: their count with its sign, then 64 bits at a time of its absolute
    value, lowest first. The count keeps two lists of numbers from being the same words. Each word
    is mixed in with SplitMix64's finaliser.
    """
    state = 0
    for number in map(operator.index, numbers):
        left, words = abs(number), []
        while left:
            words.append(left & MASK64)
            left >>= 64
        for word in (2 * len(words) + (number < 0), *words):
            state = finalise_int((state + word * MIX2 + GOLDEN) & MASK64)
    return state


def mix_words(state: int | np.ndarray, words: np.ndarray) -> np.ndarray:
    """Mixes one more number into states, as `mix_integers` does, for whole arrays.

    `mix_words(mix_integers(a), b)` equals `mix_integers(a, b)` for every b.

    Args:
        state: 64 bits that `mix_integers` or `mix_words` returned.
        words: the numbers, uint64; broadcast against the states.
    """
    words = np.asarray(words, np.uint64)
    state = _round(np.asarray(state, np.uint64), np.where(words > 0, 2, 0).astype(np.uint64))
    return np.where(words > 0, _round(state, words), state)


def _round(state: np.ndarray, word: np.ndarray) -> np.ndarray:
    """Returns the states after one more word; uint64 wraps around as the mask does."""
    with np.errstate(over="ignore"):
        return finalise(np.array(state + word * np.uint64(MIX2) + np.uint64(GOLDEN)))
