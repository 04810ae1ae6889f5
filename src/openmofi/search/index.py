"""A vector index on disk: embeddings.parquet -> index/{meta.json, part-0001/, …}.

Rows are added as further parts and deleted by a list of their numbers; meta.json, replaced at the
end of each change, names what counts. A kill leaves the old index or the new one. Row numbers stay
until `compact`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import local_path
from openmofi.search.filters import Filter
from openmofi.search.labels import Labels, Types
from openmofi.search.part import Part
from openmofi.search.passing import count_facets, passing_rows

FORMAT_VERSION = 2
_TRIES = 20
"""Times that an index is opened which others are changing."""


@dataclass(frozen=True)
class Hit:
    """A row that was found."""

    row: int
    id: str
    score: float | None
    """Cosine with what was asked for; None where nothing was."""
    path: str
    shard: str
    caption: str
    url: str
    source: str
    entities: tuple[str, ...]
    label_scores: tuple[float, ...]
    """One per entity, or none at all."""
    text_area: float | None


class Index:
    """Vectors, what is known of each, and which rows show which entity."""

    def __init__(self, folder: Path, meta: dict[str, Any], stamp: tuple[int, int] | None):
        self.folder, self.meta, self._stamp = folder, meta, stamp
        self.settings = IndexSettings(**meta["settings"])
        breadth = self.settings.ef_search
        self.parts = [Part(folder / name, ef_search=breadth) for name in meta["parts"]]
        self._begins = np.cumsum([0, *map(len, self.parts)])
        self.num_rows = int(self._begins[-1])
        self._deleted: np.ndarray | None = None
        if meta["deleted"]:
            self._deleted = np.zeros(self.num_rows, bool)
            self._deleted[np.load(folder / meta["deleted"])] = True
        self._map = np.load(folder / meta["map"], mmap_mode="r") if meta["map"] else None

    @staticmethod
    def build(
        source: Path | str,
        out: Path | str,
        settings: IndexSettings | None = None,
        *,
        kb: Path | str | None = None,
    ) -> Index:
        """Builds an index of vectors; an old one is replaced at the end.

        Args:
            source: output of `embed`, or vectors of another maker (see `openmofi.embeddings`).
            out: directory to write.
            settings: how to find the near ones.
            kb: knowledge base with the names and types of entities; the default is the one of the
                selection that was embedded.

        Raises:
            InputError: the source holds no vectors.
        """
        from openmofi.search import changes

        changes.build(source, local_path(out), settings or IndexSettings(), kb=kb)
        return Index.open(out)

    @staticmethod
    def open(folder: Path | str) -> Index:
        """Opens an index; its vectors are mapped into memory.

        Raises:
            InputError: it is not one, or damaged.
            MismatchError: an older OpenMOFI made it.
        """
        folder = Path(folder)
        if not is_index(folder):
            raise InputError(f"{str(folder)!r} is no index; make one with `openmofi index`.")
        for _ in range(_TRIES):
            stamp = _stamp(folder)
            try:
                return Index(folder, _read_meta(folder), stamp)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
                # faiss tells of damage by RuntimeError
                if stamp is not None and _stamp(folder) == stamp:
                    break  # nobody was changing it meanwhile
        raise InputError(
            f"The index {str(folder)!r} is damaged; make it again with `openmofi index`."
        )

    def add(self, source: Path | str) -> Index:
        """Adds the output of `embed`; rows for pictures that are here already replace the old ones.

        Returns:
            The index as it is now; `self` stays what it was.

        Raises:
            InputError: the vectors are of another width or model, or another process changes the
                index.
            MismatchError: one has, since it was opened.
        """
        from openmofi.search import changes

        changes.add(self, source)
        changes.merge_if_due(Index.open(self.folder))
        return Index.open(self.folder)

    def delete(self, rows: Sequence[int] | np.ndarray) -> Index:
        """Deletes rows; returns the index as it is now.

        Raises:
            InputError, MismatchError: there is no such row; else as `add`.
        """
        from openmofi.search import changes

        changes.delete(self, np.asarray(rows, np.int64))
        return Index.open(self.folder)

    def compact(self, settings: IndexSettings | None = None) -> Index:
        """Writes the index anew, without what was deleted; rows are numbered anew."""
        from openmofi.search import changes

        changes.compact(self, settings or self.settings)
        return Index.open(self.folder)

    def __len__(self) -> int:
        return self.num_rows - (0 if self._deleted is None else int(self._deleted.sum()))

    def is_current(self) -> bool:
        """Tells whether the files are still those that were opened."""
        return _stamp(self.folder) == self._stamp

    @property
    def generation(self) -> int:
        """Rises with every change."""
        return self.meta["generation"]

    @property
    def live(self) -> np.ndarray:
        """Whether each row is still there."""
        return np.ones(self.num_rows, bool) if self._deleted is None else ~self._deleted

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
            k: how many.
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
            k: how many.
            passing: bool per row; None: every row that is not deleted.

        Raises:
            InputError: the vector is of another width, or not finite.
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
        return row[best], np.clip(score[best], -1, 1), plan  # rounding may lead beyond

    def count_near(
        self,
        vector: Float[np.ndarray, " dim"],
        *,
        least: float,
        passing: np.ndarray | None = None,
    ) -> int:
        """Returns how many rows have a cosine of at least `least` with a vector; compares all.

        Args:
            vector: as for `nearest`.
            least: the cosine.
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
        """Returns whether each row passes; None where there is nothing to pass."""
        if not filter:
            return None if self._deleted is None else ~self._deleted
        return passing_rows(self, filter) & self.live

    def search_entity(self, entity: str, *, k: int = 10) -> list[Hit]:
        """Returns the most typical images of an entity: nearest to the mean of all its images."""
        mean = self.mean_of(entity)
        return [] if mean is None else self.search(mean, k=k, entity=entity)

    def mean_of(self, entity: str) -> Float[np.ndarray, " dim"] | None:
        """Returns the mean of an entity's vectors, not normalised; None if no image shows it."""
        rows = self.rows_of(entity)
        return self.vectors(rows).mean(0) if len(rows) else None

    def rows_of(self, entity: str) -> np.ndarray:
        """Returns the rows labelled with an entity."""
        rows = self.labels.rows_of(entity)
        return rows if self._deleted is None else rows[~self._deleted[rows]]

    def rows_with_id(self, wanted: str) -> np.ndarray:
        """Returns the rows of an id, which pictures of several folders may share."""
        return np.flatnonzero(pc.equal(self.rows["id"], wanted).to_numpy() & self.live)

    def entity_counts(self) -> dict[str, int]:
        """Returns entity id -> images, most images first."""
        live = self.live[self.labels.row]
        counts = np.bincount(self.labels.code[live], minlength=len(self.labels.ids))
        order = np.argsort(-counts, kind="stable")
        return {self.labels.ids[i]: int(counts[i]) for i in order.tolist() if counts[i]}

    def vectors(self, rows: np.ndarray) -> Float[np.ndarray, "n dim"]:
        """Returns the stored vectors of rows."""
        rows = np.asarray(rows, np.int64)
        found = np.zeros((len(rows), self.meta["dim"]), np.float32)
        for mine, part, own in self._by_part(rows):
            found[mine] = part.vectors(own)
        return found

    @cached_property
    def labels(self) -> Labels:
        """Which rows show which entity."""
        return Labels(self.rows)

    @cached_property
    def types(self) -> Types:
        """The types of the entities."""
        return Types(self.entities, self.labels.ids)

    @cached_property
    def rows(self) -> pa.Table:
        """What is known of each row: schema.INDEX_ROWS."""
        return pa.concat_tables([part.rows for part in self.parts]).combine_chunks()

    @cached_property
    def entities(self) -> pa.Table:
        """Columns id, label, description, types and images; most images first."""
        counts = self.entity_counts()
        known: dict[str, dict[str, Any]] = {}
        for part in reversed(self.parts):
            known |= {entity["id"]: entity for entity in part.entities.to_pylist()}
        schema = self.parts[0].entities.schema.append(pa.field("images", pa.int64()))
        rows = [known[entity] | {"images": count} for entity, count in counts.items()]
        return pa.Table.from_pylist(rows, schema=schema)

    def facets(self, rows: np.ndarray) -> dict[str, list[tuple[str, int]]]:
        """Returns how many of some rows have each entity, type and source; the 50 most frequent."""
        return count_facets(self, rows)

    def map_points(self) -> Float[np.ndarray, "rows 2"] | None:
        """Returns where rows lie on the map, from 0 to 1; NaN: added since it was made."""
        if self._map is None:
            return None
        missing = np.full((self.num_rows - len(self._map), 2), np.nan, np.float32)
        return np.r_[self._map, missing] if len(missing) else self._map

    def read_picture(self, row: int) -> bytes:
        """Returns the encoded picture of a row.

        Raises:
            OSError: its file is gone, or shorter than it was.
        """
        [(_, part, own)] = self._by_part(np.array([row]))
        place = part.rows.slice(int(own[0]), 1).to_pylist()[0]
        return part.readers[place["origin"]].read(place)

    def root_of(self, row: int) -> str:
        """Returns the input that a row's picture lies in."""
        [(_, part, own)] = self._by_part(np.array([row]))
        return part.origins[part.rows["origin"][int(own[0])].as_py()].root

    def selection_place(self, row: int) -> tuple[Path, str, int] | None:
        """Returns (selection, shard, row of the shard's labels) of a row; None: it has none."""
        [(_, part, own)] = self._by_part(np.array([row]))
        place = part.rows.slice(int(own[0]), 1).to_pylist()[0]
        selection = part.origins[place["origin"]].selection
        if not selection or place["labels_row"] is None:
            return None
        return Path(selection), place["shard"], place["labels_row"]

    def hits(self, rows: np.ndarray, scores: np.ndarray | None = None) -> list[Hit]:
        """Returns what is known of rows."""
        taken = self.rows.take(pa.array(np.asarray(rows, np.int64))).to_pylist()
        cosines = [None] * len(taken) if scores is None else np.asarray(scores).tolist()
        return [
            Hit(
                row=row,
                id=data["id"],
                score=score,
                path=data["path"],
                shard=data["shard"],
                caption=data["caption"] or "",
                url=data["url"] or "",
                source=data["source"],
                entities=tuple(data["entities"] or ()),
                label_scores=_one_each(data["label_scores"], data["entities"]),
                text_area=data["text_area"],
            )
            for row, score, data in zip(np.asarray(rows).tolist(), cosines, taken, strict=True)
        ]

    def _query(self, vector: np.ndarray) -> Float[np.ndarray, " dim"]:
        """Returns a vector of length 1.

        Raises:
            InputError: it is of another width, or not finite.
        """
        query = np.ascontiguousarray(vector, dtype=np.float32)
        if query.shape != (self.meta["dim"],) or not np.isfinite(query).all():
            raise InputError(
                f"A query is a vector of {self.meta['dim']} finite numbers, not of shape "
                f"{query.shape}."
            )
        return query / max(float(np.linalg.norm(query)), 1e-12)

    def begins(self) -> Iterator[tuple[int, Part]]:
        """Yields the first row of each part, and the part."""
        yield from zip(self._begins[:-1].tolist(), self.parts, strict=True)

    def _by_part(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Part, np.ndarray]]:
        """Yields (which of the rows, their part, their numbers in it).

        Raises:
            InputError: there is no such row.
        """
        for row in rows[(rows < 0) | (rows >= self.num_rows)][:1].tolist():
            raise InputError(f"The index has no row {row}; expected 0 to {self.num_rows - 1}.")
        numbers = np.searchsorted(self._begins, rows, "right") - 1
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            yield mine, self.parts[number], rows[mine] - self._begins[number]


def _one_each(scores: list[float] | None, entities: list[str] | None) -> tuple[float, ...]:
    """Returns scores if there is one for each entity."""
    return tuple(scores or ()) if len(scores or ()) == len(entities or ()) else ()


def is_index(folder: Path) -> bool:
    """Tells whether a folder is an index, be it of an older format."""
    return (folder / "meta.json").is_file() and (
        any(folder.glob("part-*")) or (folder / "faiss.index").is_file()
    )


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Returns what changes with every change; None where there is no meta.json."""
    try:
        state = (folder / "meta.json").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _read_meta(folder: Path) -> dict[str, Any]:
    """Returns meta.json.

    Raises:
        MismatchError: it is of another format.
    """
    meta = json.loads((folder / "meta.json").read_text())
    if meta.get("format_version") != FORMAT_VERSION:
        raise MismatchError(
            f"The index {str(folder)!r} has format {meta.get('format_version')}, this OpenMOFI "
            f"needs {FORMAT_VERSION}; make it again with `openmofi index`."
        )
    return meta
