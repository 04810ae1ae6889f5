"""What the rows of an index are filtered and counted by: tables -> flat arrays.

`Labels` are the entities that the rows show, `Types` the types of these entities, `RowTypes` the
types of the rows, and `Sources` where their images come from.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Labels:
    """The labels of all rows; arrays have one element per label, in the order of the rows."""

    def __init__(self, entities: pa.ChunkedArray, label_scores: pa.ChunkedArray):
        # Chunk by chunk where it can be: one array of all names would hold them twice.
        num_labels = pc.list_value_length(entities).fill_null(0).to_numpy()
        num_scores = pc.list_value_length(label_scores).fill_null(0).to_numpy()
        self.num_rows = len(entities)
        self.begins = _begins(num_labels)
        codes = pc.list_flatten(entities).dictionary_encode().combine_chunks()
        self.row: np.ndarray = np.repeat(np.arange(self.num_rows), num_labels)
        self.code: np.ndarray = codes.indices.to_numpy()
        self.ids: list[str] = codes.dictionary.to_pylist()
        flat = pc.list_flatten(label_scores).to_numpy().astype(np.float32, copy=False)
        fits = num_labels == num_scores  # else nothing says which label a score belongs to
        self.score = np.full(num_labels.sum(), np.nan, np.float32)
        """float32, NaN for a label without a score."""
        self.score[np.repeat(fits, num_labels)] = flat[np.repeat(fits, num_scores)]
        self._codes = {entity: code for code, entity in enumerate(self.ids)}

    def codes(self, entities: list[str] | tuple[str, ...]) -> np.ndarray:
        """Returns the codes of the entities, without those that no row shows."""
        return np.array([self._codes[e] for e in entities if e in self._codes], np.int64)

    def rows_of(self, entity: str) -> np.ndarray:
        """Returns the rows labelled with an entity, in ascending order: its posting list."""
        code = self._codes.get(entity)
        if code is None:
            return np.zeros(0, np.int64)
        order, bounds = self._postings
        return self.row[order[bounds[code] : bounds[code + 1]]]

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Returns the number of the given rows that show each entity."""
        codes = self.code[_positions(self.begins, rows)]
        return np.bincount(codes, minlength=len(self.ids))

    def rows_with(self, wanted: np.ndarray) -> np.ndarray:
        """Returns for each row whether one of its labels is wanted (bool per label)."""
        passing = np.zeros(self.num_rows, bool)
        passing[self.row[wanted]] = True
        return passing

    @cached_property
    def in_turns(self) -> np.ndarray:
        """All rows: the best image of each entity, then the second best of each, and so on.

        Entities with more images come first, rows without a label last.
        """
        first = np.full(self.num_rows, -1)
        first[self.row[::-1]] = np.arange(len(self.row))[::-1]
        labelled = np.flatnonzero(first >= 0)
        code, score = self.code[first[labelled]], self.score[first[labelled]]
        counts = np.bincount(code, minlength=len(self.ids))
        order = np.lexsort((labelled, -np.nan_to_num(score, nan=-1.0), code))
        begins = np.cumsum(counts) - counts
        turn = np.empty(len(labelled), np.int64)
        turn[order] = np.arange(len(labelled)) - begins[code[order]]
        best = np.lexsort((labelled, code, -counts[code], turn))
        return np.r_[labelled[best], np.flatnonzero(first < 0)]

    @cached_property
    def _postings(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self.code, kind="stable")
        return order, np.searchsorted(self.code[order], np.arange(len(self.ids) + 1))


class Types:
    """The types of each entity as flat arrays, indexed by the entities' codes in `Labels`."""

    def __init__(self, entities: pa.Table, ids: list[str]):
        place = pc.index_in(pa.array(ids, pa.string()), value_set=entities["id"].combine_chunks())
        types = _one_array(entities["types"]).take(place)
        flat = types.flatten().dictionary_encode()
        self.ids: list[str] = flat.dictionary.to_pylist()
        self.flat: np.ndarray = flat.indices.to_numpy()
        self.begins = _begins(pc.list_value_length(types).fill_null(0).to_numpy())

    def having(self, types: tuple[str, ...]) -> np.ndarray:
        """Returns the codes of the entities that have any of the types."""
        wanted = np.isin(self.flat, [i for i, name in enumerate(self.ids) if name in types])
        return np.unique(np.searchsorted(self.begins, np.flatnonzero(wanted), "right") - 1)


class RowTypes:
    """The types of each row, each once however many of its entities have it."""

    def __init__(self, labels: Labels, types: Types):
        self.ids = types.ids
        num_types = np.diff(types.begins)[labels.code]
        row = np.repeat(labels.row, num_types)
        kind = types.flat[_positions(types.begins, labels.code)]
        pairs = row * max(len(types.ids), 1) + kind
        pairs.sort(kind="stable")  # nearly in order already, which this kind is fast for
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        row, self.flat = np.divmod(pairs, max(len(types.ids), 1))
        self.begins = _begins(np.bincount(row, minlength=labels.num_rows))

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Returns the number of the given rows with each type."""
        return np.bincount(self.flat[_positions(self.begins, rows)], minlength=len(self.ids))


class Sources:
    """The source of each row, as a number."""

    def __init__(self, column: pa.ChunkedArray):
        codes = column.fill_null("").combine_chunks().dictionary_encode()
        self.ids: list[str] = codes.dictionary.to_pylist()
        self.code: np.ndarray = codes.indices.to_numpy()

    def among(self, sources: tuple[str, ...]) -> np.ndarray:
        """Returns for each row whether its source is one of those given."""
        return np.isin(self.ids, sources)[self.code]

    def count(self, rows: np.ndarray) -> np.ndarray:
        """Returns the number of the given rows with each source."""
        return np.bincount(self.code[rows], minlength=len(self.ids))


def _begins(lengths: np.ndarray) -> np.ndarray:
    """Returns where each list begins in the flat array, and where the last one ends."""
    return np.r_[0, np.cumsum(lengths, dtype=np.int64)]


def _positions(begins: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Returns the positions, in the flat array, of all items of the given lists."""
    num = begins[lists + 1] - begins[lists]
    ends = np.cumsum(num)
    return np.arange(num.sum()) + np.repeat(begins[lists] - (ends - num), num)


def _one_array(column: pa.ChunkedArray) -> pa.ListArray:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
