"""One part of an index on disk: vectors, their metadata, and a structure to find the nearest.

vectors.faiss     all vectors in 16 bits, mapped into memory, for exact comparison
graph.faiss       HNSW: the links between them, without the vectors
lists.faiss       IVF: the same vectors in 8 bits, by list; mapped into memory
rows.parquet      one row per vector
entities.parquet  the names and types of the entities of its rows
part.json         where the images and their labels lie

A filtered search has two plans. If few rows pass, each of them is compared, which is exact. If many
pass, the graph returns so many of the nearest rows that k of them should pass; if fewer do, as when
the filter removes exactly the near ones, all rows that pass are compared after all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from openmofi.pairs import ImageReader

GRAPH, LISTS = "graph.faiss", "lists.faiss"

_ROWS_PER_STEP = 100
"""Rows compared one by one in the time of one more step through the graph (measured: 40 ns and 4 us
at 256 dimensions)."""
_SLACK = 3
"""Ratio of the breadth of a search through the graph to the number of wanted rows, the last of
which are found less reliably than the first (measured: .97 of the answers were right with 1)."""
_GATHER_BELOW = 0.02
"""Share of passing rows below which they are gathered instead of selected during a full scan."""
_PROBES = 64
"""Least number of lists that are searched."""
_RESCORED = 4
"""Ratio of rows found by 8-bit codes, which are then compared by 16-bit vectors, to wanted rows."""
ROWS_PER_GROUP = 8192
"""Rows that are read together from rows.parquet."""

Nearest = tuple[np.ndarray, np.ndarray]
"""Rows and their cosines, best first."""


@dataclass(frozen=True)
class Origin:
    """Where the images of a part lie."""

    root: str
    selection: str = ""
    """Directory of the selection that kept them, or ""."""


class IndexPart:
    """An open part; only headers are read before the rest is needed."""

    def __init__(self, folder: Path, *, ef_search: int):
        import faiss

        self.folder, self.ef_search = folder, ef_search
        flags = faiss.IO_FLAG_MMAP_IFC
        self.stored = faiss.read_index(str(folder / "vectors.faiss"), flags)
        self.graph = self.lists = None
        if (folder / GRAPH).is_file():
            self.graph = faiss.read_index(str(folder / GRAPH), flags)
            self.graph.storage, self.graph.own_fields = self.stored, False
            self.stored.thisown = True  # the assignment has disowned it
        elif (folder / LISTS).is_file():
            self.lists = faiss.read_index(str(folder / LISTS), flags)
        described = json.loads((folder / "part.json").read_text())
        self.origins = [Origin(**origin) for origin in described["origins"]]
        # Opened now, so that they remain readable if another process removes them.
        self._rows_file = pq.ParquetFile(folder / "rows.parquet")
        self.entities = pq.read_table(folder / "entities.parquet")
        """Names and types of its entities."""
        self._reading = threading.Lock()
        self._scanners = threading.local()
        about = self._rows_file.metadata
        sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        self._group_begins = np.cumsum([0, *sizes])
        if about.num_rows != self.stored.ntotal:
            raise ValueError("the numbers of rows and vectors differ")

    def __len__(self) -> int:
        return self.stored.ntotal

    @property
    def kind(self) -> str:
        """The kind of index: flat, hnsw or ivf."""
        return "hnsw" if self.graph is not None else "ivf" if self.lists is not None else "flat"

    def column(self, *names: str) -> pa.Table:
        """Reads some columns of all rows."""
        with self._reading:  # only one thread at a time may read the file
            return self._rows_file.read(columns=list(names))

    def read_rows(self) -> pa.Table:
        """Reads the metadata of all rows: schema.INDEX_ROWS."""
        with self._reading:
            return self._rows_file.read()

    def row_groups(self) -> Iterator[tuple[int, pa.Table]]:
        """Yields (first row, metadata of some thousand rows)."""
        for group, begin in enumerate(self._group_begins[:-1].tolist()):
            with self._reading:
                table = self._rows_file.read_row_group(group)
            yield begin, table

    def take(self, rows: np.ndarray) -> pa.Table:
        """Reads the metadata of some rows, in their order."""
        groups = np.searchsorted(self._group_begins, rows, "right") - 1
        order, taken = (
            np.argsort(groups, kind="stable"),
            [self._rows_file.schema_arrow.empty_table()],
        )
        for group in np.unique(groups).tolist():
            own = rows[order[groups[order] == group]] - self._group_begins[group]
            with self._reading:
                table = self._rows_file.read_row_group(group)
            taken.append(table.take(pa.array(own)))
        return pa.concat_tables(taken).take(pa.array(np.argsort(order)))

    def vectors(self, rows: np.ndarray | None = None) -> Float[np.ndarray, "n dim"]:
        """Returns the stored vectors of all or some rows as float32."""
        halves = halves_of(self.stored)
        return (halves if rows is None else halves[rows]).astype(np.float32)

    @cached_property
    def readers(self) -> list[ImageReader]:
        """One image reader per origin."""
        return [ImageReader(origin.root) for origin in self.origins]

    def nearest(
        self, query: Float[np.ndarray, " dim"], k: int, passing: np.ndarray | None
    ) -> tuple[Nearest, bool]:
        """Returns (the k nearest rows that pass, whether all that pass were compared)."""
        count = len(self) if passing is None else int(np.count_nonzero(passing))
        k = min(k, count)
        if not k:
            return (np.zeros(0, np.int64), np.zeros(0, np.float32)), True
        # So many of the nearest rows contain k that pass, with a margin of three deviations.
        share = count / len(self)
        wanted = int(np.ceil((k + 3 * np.sqrt(k * (1 - share))) / share))
        breadth = max(self.ef_search, _SLACK * wanted)
        if self.kind != "flat" and breadth * _ROWS_PER_STEP < count:
            rows, scores = self._through_graph(query, wanted, breadth)
            if passing is not None:
                rows, scores = rows[passing[rows]], scores[passing[rows]]
            if len(rows) >= k:
                return (rows[:k], scores[:k]), False
        return self._one_by_one(query, k, passing, count), True

    def count_near(
        self, query: Float[np.ndarray, " dim"], least: float, passing: np.ndarray | None
    ) -> int:
        """Returns the number of passing rows with a cosine of at least `least` to a unit vector."""
        import faiss

        found = faiss.RangeSearchResult(1)
        partial = faiss.RangeSearchPartialResult(found)
        near = partial.new_result(0)
        self._scanner.set_query(faiss.swig_ptr(query))
        below = float(np.nextafter(np.float32(least), np.float32(-np.inf)))  # only more is counted
        codes = self.stored.codes.data()
        self._scanner.scan_codes_range(len(self), codes, None, below, near)
        if passing is None or not near.nres:
            return near.nres
        partial.finalize()
        rows = faiss.rev_swig_ptr(found.labels, near.nres)
        return int(np.count_nonzero(passing[rows]))

    @property
    def _scanner(self) -> Any:
        """This thread's scanner of the vectors.

        `range_search` decodes each vector first, which takes 40 times as long (faiss 1.15). Kept,
        for faiss's Python package cannot free a scanner.
        """
        import faiss

        if not hasattr(self._scanners, "own"):
            kind = (faiss.METRIC_INNER_PRODUCT, None, True, None)  # rows are numbered by place
            self._scanners.own = self.stored.sq.select_InvertedListScanner(*kind)
            self._scanners.own.set_list(0, 0.0)
        return self._scanners.own

    def _through_graph(self, query: np.ndarray, wanted: int, breadth: int) -> Nearest:
        """Returns the nearest rows, whether they pass or not."""
        import faiss

        if self.graph is not None:
            broad = faiss.SearchParametersHNSW(efSearch=breadth)
            scores, rows = self.graph.search(query[None], wanted, params=broad)
            known = rows[0] >= 0
            return rows[0][known], scores[0][known]
        assert self.lists is not None
        probes = max(_PROBES, self.lists.nlist * breadth * _ROWS_PER_STEP // len(self))
        some = faiss.SearchParametersIVF(nprobe=min(probes, self.lists.nlist))
        _, rows = self.lists.search(query[None], min(_RESCORED * wanted, len(self)), params=some)
        return self._compare(query, rows[0][rows[0] >= 0], wanted)

    def _one_by_one(
        self, query: np.ndarray, k: int, passing: np.ndarray | None, count: int
    ) -> Nearest:
        import faiss

        if passing is not None and count < _GATHER_BELOW * len(self):
            return self._compare(query, np.flatnonzero(passing), k)
        selected = None
        if passing is not None and count < len(self):
            bits = np.packbits(passing, bitorder="little")
            selected = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
        scores, rows = self.stored.search(query[None], k, params=selected)
        known = rows[0] >= 0
        return rows[0][known], scores[0][known]

    def _compare(self, query: np.ndarray, rows: np.ndarray, k: int) -> Nearest:
        scores = self.vectors(rows) @ query
        best = np.lexsort((rows, -scores))[:k]
        return rows[best], scores[best]


def halves_of(stored: Any) -> Float[np.ndarray, "n dim"]:
    """Returns faiss' stored vectors as they are, float16, without a copy."""
    import faiss

    codes = faiss.rev_swig_ptr(stored.codes.data(), stored.codes.size())
    return codes.view(np.float16).reshape(stored.ntotal, stored.d)
