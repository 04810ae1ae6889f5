"""The state of an index at one moment: index/{meta.json, part-0001/, …} -> rows, vectors, labels.

Rows are added as new parts and deleted by a list of their numbers; meta.json, replaced at the end
of each change, lists the valid files. Row numbers do not change until `compact`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.errors import InputError, MismatchError
from openmofi.schema import INDEX_ROWS
from openmofi.search.labels import Labels, RowTypes, Sources, Types
from openmofi.search.part import ROWS_PER_GROUP, IndexPart
from openmofi.search.presence import PresenceCalibration

FORMAT_VERSION = 2
_CHANGED_AT_MOST = 0.01
"""Share of the rows that may have been added or deleted since an index was calibrated."""
_TRIES = 20
"""Attempts to open an index that other processes are changing."""


class Snapshot:
    """The rows of an index at the time when it was opened, whatever changes later."""

    def __init__(self, folder: Path, meta: dict[str, Any], stamp: tuple[int, int] | None):
        self.folder, self.meta, self._stamp = folder, meta, stamp
        self.settings = IndexSettings(**meta["settings"])
        breadth = self.settings.ef_search
        self.parts = [IndexPart(folder / name, ef_search=breadth) for name in meta["parts"]]
        self._begins = np.cumsum([0, *map(len, self.parts)])
        self.num_rows = int(self._begins[-1])
        self._deleted: np.ndarray | None = None
        if meta["deleted"]:
            self._deleted = np.zeros(self.num_rows, bool)
            self._deleted[np.load(folder / meta["deleted"])] = True
        self._rows: pa.Table | None = None
        self._num_taken = 0
        self._reading = threading.Lock()
        self._map = np.load(folder / meta["map"], mmap_mode="r") if meta["map"] else None
        known = meta.get("calibration")
        self.calibration = PresenceCalibration.read(folder / known["file"]) if known else None
        """What tells whether the index holds what was asked for; None: it was not learnt."""

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Opens an index; its vectors are mapped into memory.

        Raises:
            InputError: the folder is not an index, or is damaged.
            MismatchError: it was made by an older version of OpenMOFI.
        """
        folder = Path(folder)
        if not is_index(folder):
            raise InputError(f"{str(folder)!r} is not an index; make one with `openmofi index`.")
        for _ in range(_TRIES):
            stamp = _stamp(folder)
            try:
                return cls(folder, _read_meta(folder), stamp)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
                # faiss reports damage by RuntimeError
                if stamp is not None and _stamp(folder) == stamp:
                    break  # it has not changed in the meantime
        raise InputError(
            f"The index {str(folder)!r} is damaged; make it again with `openmofi index`."
        )

    def __len__(self) -> int:
        return self.num_rows - (0 if self._deleted is None else int(self._deleted.sum()))

    def is_current(self) -> bool:
        """Returns whether the index is still in the state that was opened."""
        return _stamp(self.folder) == self._stamp

    @property
    def generation(self) -> int:
        """Number of the state, which rises with every change."""
        return self.meta["generation"]

    @property
    def live(self) -> np.ndarray:
        """Whether each row is not deleted."""
        return np.ones(self.num_rows, bool) if self._deleted is None else ~self._deleted

    def begins(self) -> Iterator[tuple[int, IndexPart]]:
        """Yields (first row, part)."""
        yield from zip(self._begins[:-1].tolist(), self.parts, strict=True)

    def by_part(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, IndexPart, np.ndarray]]:
        """Yields (indexes into the rows, their part, their row numbers in it).

        Raises:
            InputError: there is no such row.
        """
        for row in rows[(rows < 0) | (rows >= self.num_rows)][:1].tolist():
            raise InputError(f"The index has no row {row}; expected 0 to {self.num_rows - 1}.")
        numbers = np.searchsorted(self._begins, rows, "right") - 1
        for number in np.unique(numbers).tolist():
            mine = np.flatnonzero(numbers == number)
            yield mine, self.parts[number], rows[mine] - self._begins[number]

    @property
    def changed_since_calibration(self) -> float:
        """Rows added or deleted since then, as a share of those that there were."""
        known = self.meta.get("calibration")
        return known["changed"] / max(known["rows"], 1) if known else 0.0

    @property
    def calibration_is_old(self) -> bool:
        """Whether too much has changed since the calibration for it to count."""
        return self.changed_since_calibration > _CHANGED_AT_MOST

    def map_points(self) -> Float[np.ndarray, "rows 2"] | None:
        """Returns the rows' points on the map, from 0 to 1; NaN for rows added later."""
        if self._map is None:
            return None
        missing = np.full((self.num_rows - len(self._map), 2), np.nan, np.float32)
        return np.r_[self._map, missing] if len(missing) else self._map

    def entity_counts(self) -> dict[str, int]:
        """Returns the number of images by entity id, most images first."""
        live = self.live[self.labels.row]
        counts = np.bincount(self.labels.code[live], minlength=len(self.labels.ids))
        order = np.argsort(-counts, kind="stable")
        return {self.labels.ids[i]: int(counts[i]) for i in order.tolist() if counts[i]}

    def vectors(self, rows: np.ndarray) -> Float[np.ndarray, "n dim"]:
        """Returns the stored vectors of rows."""
        rows = np.asarray(rows, np.int64)
        found = np.zeros((len(rows), self.meta["dim"]), np.float32)
        for mine, part, own in self.by_part(rows):
            found[mine] = part.vectors(own)
        return found

    @cached_property
    def labels(self) -> Labels:
        """The labels of the rows."""
        return Labels(self.column("entities"), self.column("label_scores"))

    @cached_property
    def types(self) -> Types:
        """The types of the entities."""
        return Types(self.entities, self.labels.ids)

    @cached_property
    def row_types(self) -> RowTypes:
        """The types of the rows."""
        return RowTypes(self.labels, self.types)

    @cached_property
    def sources(self) -> Sources:
        """The sources of the rows."""
        return Sources(self.column("source"))

    @cached_property
    def text_area(self) -> np.ndarray:
        """The share of each image that is covered by text; NaN where it is unknown."""
        return self.column("text_area").to_numpy()

    @property
    def rows(self) -> pa.Table:
        """The metadata of each row: schema.INDEX_ROWS; stays in memory once it was asked for."""
        with self._reading:
            if self._rows is None:
                tables = [part.read_rows() for part in self.parts]
                self._rows = pa.concat_tables(tables).combine_chunks()
        return self._rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns a column of `rows` without reading the others."""
        if self._rows is not None:
            return self._rows[name]
        return pa.concat_tables([part.column(name) for part in self.parts])[name]

    def take(self, rows: np.ndarray) -> pa.Table:
        """Returns the metadata of some rows, in their order, without reading all others.

        Raises:
            InputError: there is no such row.
        """
        rows = np.asarray(rows, np.int64)
        parts = list(self.by_part(rows))
        # Each row costs reading a group of rows: soon it is cheaper to read all, and to keep them.
        if self._rows is not None or self._num_taken * ROWS_PER_GROUP >= self.num_rows:
            return self.rows.take(pa.array(rows))
        self._num_taken += len(rows)
        if not parts:
            return INDEX_ROWS.empty_table()
        taken = pa.concat_tables([part.take(own) for _, part, own in parts])
        return taken.take(pa.array(np.argsort(np.concatenate([mine for mine, _, _ in parts]))))

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


def is_index(folder: Path) -> bool:
    """Returns whether a folder is an index, of any format version."""
    return (folder / "meta.json").is_file() and (
        any(folder.glob("part-*")) or (folder / "faiss.index").is_file()
    )


def _stamp(folder: Path) -> tuple[int, int] | None:
    """Returns a stamp that differs after every change; None without meta.json."""
    try:
        state = (folder / "meta.json").stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def _read_meta(folder: Path) -> dict[str, Any]:
    """Returns meta.json.

    Raises:
        MismatchError: the index has another format.
    """
    meta = json.loads((folder / "meta.json").read_text())
    if meta.get("format_version") != FORMAT_VERSION:
        raise MismatchError(
            f"The index {str(folder)!r} has format {meta.get('format_version')}, this OpenMOFI "
            f"needs {FORMAT_VERSION}; make it again with `openmofi index`."
        )
    return meta
