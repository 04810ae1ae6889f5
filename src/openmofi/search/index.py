"""A vector index: it is built and changed on disk, and finds the rows nearest to a vector.

An open index keeps the state in which it was opened (`snapshot.py`); each change (`changes.py`)
returns the index in its new state. A kill leaves the old state or the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.errors import InputError
from openmofi.files.folders import local_path
from openmofi.search import changes
from openmofi.search.filter_rows import count_facet, passing_rows
from openmofi.search.filters import Facet, Filter
from openmofi.search.part import IndexPart
from openmofi.search.snapshot import Snapshot


@dataclass(frozen=True)
class Hit:
    """A row of a search's result."""

    row: int
    id: str
    score: float | None
    """Cosine with the query; None without a query."""
    path: str
    shard: str
    caption: str
    url: str
    source: str
    entities: tuple[str, ...]
    label_scores: tuple[float, ...]
    """One per entity, or empty."""
    text_area: float | None


class Index(Snapshot):
    """Vectors with their metadata and labels."""

    @staticmethod
    def build(
        source: Path | str,
        out: Path | str,
        settings: IndexSettings | None = None,
        *,
        kb: Path | str | None = None,
    ) -> Index:
        """Builds an index of vectors; replaces an old one at the end.

        Args:
            source: output of `embed`, or vectors of other tools (see `openmofi.embeddings`).
            out: directory to write.
            settings: kind and parameters of the index.
            kb: knowledge base with the names and types of entities; the default is the one of the
                selection that was embedded.

        Raises:
            InputError: the source holds no vectors.
        """
        changes.build(source, local_path(out), settings or IndexSettings(), kb=kb)
        return Index.open(out)

    def add(self, source: Path | str) -> Index:
        """Adds the output of `embed`; new rows replace old rows of the same images.

        Returns:
            The index in its new state; `self` does not change.

        Raises:
            InputError: the vectors have another width or model, or another process is changing the
                index.
            MismatchError: the index has changed since it was opened.
        """
        changes.add(self, source)
        changes.merge_if_due(Index.open(self.folder))
        return Index.open(self.folder)

    def delete(self, rows: Sequence[int] | np.ndarray) -> Index:
        """Deletes rows; returns the index in its new state.

        Raises:
            InputError: there is no such row, or another process is changing the index.
            MismatchError: the index has changed since it was opened.
        """
        changes.delete(self, np.asarray(rows, np.int64))
        return Index.open(self.folder)

    def compact(self, settings: IndexSettings | None = None) -> Index:
        """Rewrites the index without deleted rows, which renumbers the others."""
        changes.compact(self, settings or self.settings)
        return Index.open(self.folder)

    def search(
        self,
        vector: Float[np.ndarray, " dim"],
        *,
        k: int = 10,
        entity: str | None = None,
        filter: Filter | None = None,
    ) -> list[Hit]:
        """Returns the k rows nearest to a vector, best first.

        Args:
            vector: of the index's width; normalised here.
            k: number of rows.
            entity: only rows labelled with this id.
            filter: only rows that pass it.
        """
        wanted = filter or Filter(entities=() if entity is None else (entity,))
        rows, scores, _ = self.nearest(vector, k=k, passing=self.passing(wanted))
        return self.hits(rows, scores)

    def nearest(
        self, vector: Float[np.ndarray, " dim"], *, k: int, passing: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, str]:
        """Returns (rows, cosines, "exact" or "approximate"), best first.

        Args:
            vector: of the index's width; normalised here.
            k: number of rows.
            passing: bool per row; None: every row that is not deleted.

        Raises:
            InputError: the vector has another width, or is not finite.
        """
        query = self._query(vector)
        passing = self.passing(Filter()) if passing is None else passing
        rows, scores, plan = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], "exact"
        for begin, part in self.begins():
            own = None if passing is None else passing[begin : begin + len(part)]
            (found, cosines), exact = part.nearest(query, max(k, 0), own)
            rows.append(found + begin)
            scores.append(cosines)
            plan = plan if exact else "approximate"
        row, score = np.concatenate(rows), np.concatenate(scores)
        best = np.lexsort((row, -score))[: max(k, 0)]
        return row[best], np.clip(score[best], -1, 1), plan  # rounding may exceed 1

    def count_near(
        self,
        vector: Float[np.ndarray, " dim"],
        *,
        least: float,
        passing: np.ndarray | None = None,
    ) -> int:
        """Returns the number of rows with a cosine of at least `least`; compares all rows.

        Args:
            vector: as for `nearest`.
            least: the least cosine.
            passing: as for `nearest`.
        """
        query = self._query(vector)
        passing = self.passing(Filter()) if passing is None else passing
        return sum(
            part.count_near(
                query, least, None if passing is None else passing[begin : begin + len(part)]
            )
            for begin, part in self.begins()
        )

    def passing(self, filter: Filter) -> np.ndarray | None:
        """Returns whether each row passes; None if all rows do."""
        if not filter:
            return None if self._deleted is None else ~self._deleted
        return passing_rows(self, filter) & self.live

    def search_entity(self, entity: str, *, k: int = 10) -> list[Hit]:
        """Returns the most typical images of an entity: those nearest to the mean of its images."""
        mean = self.mean_of(entity)
        return [] if mean is None else self.search(mean, k=k, entity=entity)

    def mean_of(self, entity: str) -> Float[np.ndarray, " dim"] | None:
        """Returns the mean of an entity's vectors, not normalised; None if it has no image."""
        rows = self.rows_of(entity)
        return self.vectors(rows).mean(0) if len(rows) else None

    def rows_of(self, entity: str) -> np.ndarray:
        """Returns the rows labelled with an entity."""
        rows = self.labels.rows_of(entity)
        return rows if self._deleted is None else rows[~self._deleted[rows]]

    def rows_with_id(self, wanted: str) -> np.ndarray:
        """Returns the rows with an id; images of several folders may share one."""
        return np.flatnonzero(pc.equal(self.column("id"), wanted).to_numpy() & self.live)

    def facet(self, rows: np.ndarray, facet: Facet) -> list[tuple[str, int]]:
        """Returns the number of rows with each entity, type or source, the 50 most frequent."""
        return count_facet(self, rows, facet)

    def read_image(self, row: int) -> bytes:
        """Returns the encoded image of a row.

        Raises:
            OSError: the file is gone, or shorter than it was.
        """
        part, place = self._place(row)
        return part.readers[place["origin"]].read(place)

    def root_of(self, row: int) -> str:
        """Returns the root of the input that contains a row's image."""
        part, place = self._place(row)
        return part.origins[place["origin"]].root

    def selection_place(self, row: int) -> tuple[Path, str, int] | None:
        """Returns (selection, shard, row of the shard's labels) of a row, or None."""
        part, place = self._place(row)
        selection = part.origins[place["origin"]].selection
        if not selection or place["labels_row"] is None:
            return None
        return Path(selection), place["shard"], place["labels_row"]

    def hits(self, rows: np.ndarray, scores: np.ndarray | None = None) -> list[Hit]:
        """Returns rows as hits."""
        taken = self.take(rows).to_pylist()
        cosines = [None] * len(taken) if scores is None else np.asarray(scores).tolist()
        hits = []
        for row, score, data in zip(np.asarray(rows).tolist(), cosines, taken, strict=True):
            entities, scored = tuple(data["entities"] or ()), tuple(data["label_scores"] or ())
            hit = Hit(
                row=row,
                id=data["id"],
                score=score,
                path=data["path"],
                shard=data["shard"],
                caption=data["caption"] or "",
                url=data["url"] or "",
                source=data["source"],
                entities=entities,
                label_scores=scored if len(scored) == len(entities) else (),
                text_area=data["text_area"],
            )
            hits.append(hit)
        return hits

    def _place(self, row: int) -> tuple[IndexPart, dict[str, Any]]:
        """Returns a row's part and its metadata."""
        [(_, part, _)] = self.by_part(np.array([row]))
        return part, self.take(np.array([row])).to_pylist()[0]

    def _query(self, vector: np.ndarray) -> Float[np.ndarray, " dim"]:
        """Normalises a vector.

        Raises:
            InputError: it has another width, or is not finite.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32)
        if query.shape != (self.meta["dim"],) or not np.isfinite(query).all():
            raise InputError(
                f"A query must be a vector of {self.meta['dim']} finite numbers, not of shape "
                f"{query.shape}."
            )
        return query / max(float(np.linalg.norm(query)), 1e-12)
