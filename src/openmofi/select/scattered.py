"""Records on disk, in parts that fit into memory one at a time.

Several threads may add records at once, so the order within a part is arbitrary: who reads a part
sorts it.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

import numpy as np

from openmofi.arrays.splitmix64 import finalise
from openmofi.select.blocks import Numbered


class Scattered:
    """Records of one type, filed by the number of their part."""

    def __init__(self, folder: Path, num_parts: int, dtype: np.dtype):
        folder.mkdir()
        self._folder, self._dtype, self._adding = folder, dtype, Lock()
        self.num_parts = num_parts
        self.sizes = [0] * num_parts
        """Number of records of each part."""

    @property
    def parts(self) -> list[Numbered]:
        """The parts that hold anything."""
        return [Numbered(number, size) for number, size in enumerate(self.sizes) if size]

    def add(self, part: np.ndarray, records: np.ndarray) -> None:
        """Files each record under a part."""
        order = np.argsort(part.astype(np.min_scalar_type(self.num_parts)), kind="stable")
        counts = np.bincount(part, minlength=self.num_parts)
        self.add_sorted(np.cumsum(counts)[:-1], records[order])

    def add_sorted(self, begins: np.ndarray, records: np.ndarray) -> None:
        """Files records that are in the order of their parts.

        Args:
            begins: first record of each part but the first one.
            records: the records.
        """
        assert records.dtype == self._dtype
        with self._adding:
            for number, mine in enumerate(np.split(records, begins)):
                if len(mine):
                    with self._path(number).open("ab") as file:
                        file.write(mine.data)
                    self.sizes[number] += len(mine)

    def read(self, part: int) -> np.ndarray:
        """Returns the records of a part, in no particular order."""
        if not self.sizes[part]:
            return np.zeros(0, self._dtype)
        return np.fromfile(self._path(part), self._dtype)

    def _path(self, part: int) -> Path:
        return self._folder / str(part)


def part_of(keys: np.ndarray, num_parts: int) -> np.ndarray:
    """Returns a part for each key, equal ones in the same, and about as many in each."""
    high = finalise(keys.astype(np.uint64)) >> np.uint64(32)
    return ((high * np.uint64(num_parts)) >> np.uint64(32)).astype(np.int64)
