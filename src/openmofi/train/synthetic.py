"""Captions that a model wrote of the images: a table of them -> those of every row of a dataset.

MobileCLIP's reinforced datasets (arXiv 2311.17049, section 3) hold such captions beside the images'
own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

CAPTIONS = "captions"
"""Folder of a job's tables with captions."""


@dataclass(frozen=True)
class SyntheticCaptions:
    """One or several captions of each row."""

    lists: pa.ListArray
    """The captions of every row; never none."""

    @staticmethod
    def of(given: list[list[str]], captions: list[str]) -> SyntheticCaptions:
        """Returns the given captions, and the image's own where none is given."""
        lists = [texts or [own] for texts, own in zip(given, captions, strict=True)]
        return SyntheticCaptions(pa.array(lists, pa.list_(pa.string())))

    @cached_property
    def counts(self) -> Int[np.ndarray, " rows"]:
        """Number of captions of each row."""
        return np.diff(self.lists.offsets.to_numpy())

    @property
    def most(self) -> int:
        """Number of captions of the row that has most."""
        return int(self.counts.max())

    @cached_property
    def digest(self) -> str:
        """What tells these captions from others."""
        told = hashlib.sha256(np.ascontiguousarray(self.counts, np.int64).tobytes())
        for text in self.lists.values.to_pylist():
            told.update(text.encode("utf-8", "surrogatepass") + b"\0")
        return told.hexdigest()

    def choose(
        self, rows: Int[np.ndarray, " n"], draws: Float[np.ndarray, " n"]
    ) -> Int[np.ndarray, " n"]:
        """Returns the number of the caption that a draw from [0, 1) selects of each row."""
        return (draws * self.counts[rows]).astype(np.int64)

    def of_rows(self, rows: Int[np.ndarray, " n"]) -> list[list[str]]:
        """Returns all captions of some rows."""
        return self.lists.take(pa.array(rows)).to_pylist()
