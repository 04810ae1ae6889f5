"""Id -> row of an entity, memory-mapped; a redirected id leads to the row of its target.

In: ids in row order. Out: a folder with the ids as one Arrow string column (`offsets`, `bytes`) and
their positions in byte order (`order`), for a binary search.
"""

import itertools
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.compiled import compiled
from openmofi.arrays.mapped import open_array
from openmofi.arrays.strings import open_strings, string_buffers, write_strings


class Ids:
    """The ids of a knowledge base."""

    def __init__(self, folder: Path, num_entities: int):
        self._folder, self._num_entities = folder, num_entities

    @cached_property
    def _all(self) -> pa.LargeStringArray:
        """Ids by row, then redirected ids."""
        return open_strings(self._folder)

    @cached_property
    def by_row(self) -> pa.LargeStringArray:
        """The id of every entity."""
        return self._all[: self._num_entities]

    @cached_property
    def _order(self) -> np.ndarray:
        return open_array(self._folder / "order.npy")

    @cached_property
    def _redirected(self) -> np.ndarray:
        return open_array(self._folder / "redirected.npy")

    @cached_property
    def ranks(self) -> np.ndarray:
        """The place of every entity's id, uint32, if all were sorted by their bytes."""
        order = self._order[self._order < self._num_entities]
        ranks = np.empty(len(order), np.uint32)
        ranks[order] = np.arange(len(order), dtype=np.uint32)
        return ranks

    def rows(self, ids: pa.Array) -> np.ndarray:
        """Returns the int64 row of each id, -1 for unknown ones."""
        wanted = string_buffers(ids.cast(pa.large_string()))
        position = _search(*wanted, *string_buffers(self._all), self._order)
        away = position >= self._num_entities
        position[away] = self._redirected[position[away] - self._num_entities]
        return position


def write_ids(
    folder: Path,
    ids: Iterable[pa.Array],
    redirects: tuple[pa.Array, np.ndarray] | None = None,
) -> None:
    """Writes the arrays of `Ids`.

    Args:
        folder: the folder to create.
        ids: batches of ids in row order.
        redirects: old ids, and the row to which each leads.
    """
    old = [redirects[0]] if redirects else []
    write_strings(folder, itertools.chain(ids, old))
    order = pc.sort_indices(open_strings(folder)).to_numpy()
    np.save(folder / "order.npy", order.astype(np.uint32))
    rows = redirects[1] if redirects else np.zeros(0)
    np.save(folder / "redirected.npy", rows.astype(np.uint32))


@compiled
def _search(wanted_offsets, wanted, offsets, data, order):
    """Returns the position of each wanted id among all ids, or -1, by binary search."""
    found = np.full(len(wanted_offsets) - 1, -1, np.int64)
    for i in range(len(found)):
        begin, end = wanted_offsets[i], wanted_offsets[i + 1]
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            at = np.int64(order[middle])
            sign = _compare(wanted, begin, end, data, offsets[at], offsets[at + 1])
            if sign == 0:
                found[i] = at
                break
            if sign < 0:
                high = middle
            else:
                low = middle + 1
    return found


@compiled
def _compare(one, begin, end, other, at, stop):
    """Compares two byte strings: negative, 0 or positive."""
    while begin < end and at < stop:
        if one[begin] != other[at]:
            return np.int64(one[begin]) - np.int64(other[at])
        begin, at = begin + 1, at + 1
    return (end - begin) - (stop - at)
