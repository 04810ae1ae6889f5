"""Rarity of the words in entity texts: their document frequencies, counted at build time.

In: labels and descriptions. Out: words/hashes.npy (sorted) and words/counts.npy.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from openmofi.arrays.hashing import Hasher
from openmofi.arrays.mapped import open_array
from openmofi.arrays.runs import begins_run
from openmofi.kb.text import Captions, tokenise
from openmofi.kb.texts import Texts

_SAMPLE = 200_000
"""Number of entities whose words are counted: the most popular ones."""
_BATCH = 8192


class WordCounts:
    """The number of sampled texts in which each word occurs."""

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return open_array(self._folder / "hashes.npy"), open_array(self._folder / "counts.npy")

    def rarity(self, word: np.ndarray) -> np.ndarray:
        """Returns log((1 + texts) / (1 + texts with the word)) for each word's hash."""
        known, counts = self._arrays
        total, counts = counts[0], counts[1:]
        at = np.minimum(np.searchsorted(known, word), max(len(known) - 1, 0))
        seen = np.where(known[at] == word, counts[at], 0) if len(known) else np.zeros(len(word))
        return np.log((1.0 + total) / (1.0 + seen))


def distinct_words(texts: Captions, hasher: Hasher) -> tuple[np.ndarray, np.ndarray]:
    """Returns (text, hash) of every different word of every text, in order."""
    tokens = tokenise(texts)
    hashes = hasher.spans(tokens.buffer, tokens.start, tokens.end)
    order = np.lexsort((hashes, tokens.row))
    row, word = tokens.row[order], hashes[order]
    first = begins_run(row, word)
    return row[first], word[first]


def write_word_counts(folder: Path, hasher: Hasher) -> None:
    """Counts the words of a knowledge base's texts and writes words/ into its folder."""
    texts = Texts(folder / "texts")
    total = min(len(texts.label), _SAMPLE)
    known, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for at in range(0, total, _BATCH):
        _, words = distinct_words(texts.described(np.arange(at, min(at + _BATCH, total))), hasher)
        both = np.concatenate([known, words])
        weights = np.concatenate([counts, np.ones(len(words), np.int64)])
        known, inverse = np.unique(both, return_inverse=True)
        counts = np.bincount(inverse, weights, len(known)).astype(np.int64)
    (folder / "words").mkdir()
    np.save(folder / "words" / "hashes.npy", known)
    # The number of texts comes first.
    np.save(folder / "words" / "counts.npy", np.append(total, counts))
