"""Changes of an index on disk; each is visible whole or not at all.

A change writes new files next to the old ones, then replaces meta.json, which lists the valid
files, and then removes the others. A process that has the index open keeps its old state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import (
    check_replaceable,
    lock_file,
    new_folder,
    replace_file,
    sync_tree,
)
from openmofi.search.part import IndexPart
from openmofi.search.presence import PresenceCalibration
from openmofi.search.snapshot import FORMAT_VERSION, Snapshot, is_index
from openmofi.search.structures import write_structure
from openmofi.search.write import Described, kind_for, merge_parts, places, write_source

_MOST_PARTS = 8
_PLACE = ("shard", "path", "offset")
_TAIL_SHARE = 0.1
"""Share of the first part above which the later parts, searched row by row, are merged into it."""
_LEAST_TAIL = 10_000
_UNFINISHED = "unfinished-graph"
"""A graph whose building was interrupted; the same change goes on with it."""


def build(source: Path | str, out: Path, settings: IndexSettings, *, kb: Path | str | None) -> None:
    """Writes an index of vectors; see `Index.build`."""
    check_replaceable(out, is_index, "an index")
    kept = out.with_name(f".{out.name}.graph")
    busy = _locked(out) if is_index(out) else nullcontext()
    with busy, new_folder(out) as partial:
        folder = partial / "part-0001"
        described = write_source(folder, source, kb=kb)
        part = IndexPart(folder, ef_search=settings.ef_search)
        kind = kind_for(settings, len(part), part.stored.d)
        write_structure(folder, kind=kind, settings=settings, kept=kept)
        meta = {
            "format_version": FORMAT_VERSION,
            "id": uuid.uuid4().hex,
            "generation": 1,
            "rows": len(part),
            "dim": part.stored.d,
            "kind": kind,
            "settings": asdict(settings),
            "model": described.model,
            "kb": described.kb,
            "selection": described.origin.selection,
            "parts": ["part-0001"],
            "deleted": None,
            "map": None,
            "calibration": None,
            "added": "",
        }
        _write_meta(partial / "meta.json", meta)


def add(index: Snapshot, source: Path | str) -> None:
    """Adds vectors as a part; see `Index.add`."""

    def check(described: Described, dim: int) -> None:
        if dim != index.meta["dim"]:
            raise InputError(
                f"{str(source)!r} holds vectors of {dim} numbers, the index of "
                f"{index.meta['dim']}; embed with the model {index.meta['model']!r}."
            )
        if described.model != index.meta["model"]:
            raise InputError(
                f"{str(source)!r} was made by the model {described.model!r}, the index by "
                f"{index.meta['model']!r}; their vectors cannot be compared."
            )

    with _changing(index, adds=True) as meta:
        name = _next(index, "part")
        folder = index.folder / name
        described = write_source(folder, source, kb=index.meta["kb"] or None, check=check)
        added = _digest(folder)
        if added == meta["added"]:
            print("note: these vectors were added last; nothing is added again", file=sys.stderr)
            return
        meta["added"] = added
        part = IndexPart(folder, ef_search=index.settings.ef_search)
        meta["parts"] = [*meta["parts"], name]
        meta["rows"] = index.num_rows + len(part)
        _count_changed(meta, len(part))
        _delete(index, meta, _replaced(index, part, described.origin.root))


def merge_if_due(index: Snapshot) -> None:
    """Merges the parts if there are many, or if many rows are searched one by one."""
    tail, first = index.num_rows - len(index.parts[0]), len(index.parts[0])
    if len(index.parts) <= _MOST_PARTS and tail <= max(_LEAST_TAIL, _TAIL_SHARE * first):
        return
    with _changing(index, adds=True) as meta:
        name = _next(index, "part")
        if meta["kind"] == "flat":
            meta["kind"] = kind_for(index.settings, index.num_rows, index.meta["dim"])
        merge_parts(
            index.folder / name,
            index.parts,
            kind=meta["kind"],
            settings=index.settings,
            kept=index.folder / _UNFINISHED,
        )
        meta["parts"] = [name]


def delete(index: Snapshot, rows: np.ndarray) -> None:
    """Marks rows as deleted; see `Index.delete`."""
    for row in rows[(rows < 0) | (rows >= index.num_rows)][:1].tolist():
        raise InputError(f"The index has no row {row}; expected 0 to {index.num_rows - 1}.")
    with _changing(index) as meta:
        _delete(index, meta, rows)


def compact(index: Snapshot, settings: IndexSettings) -> None:
    """Rewrites all rows that are not deleted as one part; see `Index.compact`."""
    keep = np.flatnonzero(index.live)
    with _changing(index) as meta:
        name = _next(index, "part")
        meta["kind"] = kind_for(settings, len(keep), index.meta["dim"])
        merge_parts(
            index.folder / name,
            index.parts,
            keep=keep,
            kind=meta["kind"],
            settings=settings,
            kept=index.folder / _UNFINISHED,
        )
        meta |= {"parts": [name], "rows": len(keep), "deleted": None}
        meta["settings"] = asdict(settings)
        points = index.map_points()
        if points is not None:
            meta["map"] = _save(index, "map", points[keep])


def set_calibration(index: Snapshot, calibration: PresenceCalibration) -> None:
    """Stores what tells whether the index holds what was asked for."""
    with _changing(index) as meta:
        name = _next(index, "calibration") + ".npz"
        calibration.write(index.folder / name)
        meta["calibration"] = {"file": name, "rows": len(index), "changed": 0}


def set_map(index: Snapshot, points: Float[np.ndarray, "rows 2"]) -> None:
    """Stores the position of each row on a map."""
    with _changing(index) as meta:
        meta["map"] = _save(index, "map", points.astype(np.float32))


@contextmanager
def _changing(index: Snapshot, *, adds: bool = False) -> Iterator[dict[str, Any]]:
    """Yields a copy of meta.json to change; if no error occurs, it replaces meta.json.

    Args:
        index: the index.
        adds: whether the change belongs to an addition, so that meta.json still says what was
            added last: if the command was killed after that, it must not add it again.

    Raises:
        InputError: another process is changing the index.
        MismatchError: the index has changed since it was opened.
    """
    with _locked(index.folder):
        if not index.is_current():
            raise MismatchError(f"{str(index.folder)!r} has changed in the meantime; try again.")
        _remove_unnamed(index.folder, index.meta)
        meta: dict[str, Any] = {"added": "", **index.meta}
        if not adds:
            meta["added"] = ""
        before = dict(meta)
        yield meta
        if adds and meta == before:
            _remove_unnamed(index.folder, meta)
            return
        meta["generation"] += 1
        sync_tree(index.folder)  # the files must reach the disk before meta.json names them
        with replace_file(index.folder / "meta.json") as partial:
            _write_meta(partial, meta)
        _remove_unnamed(index.folder, meta)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Prevents other processes from changing an index.

    Raises:
        InputError: another process is changing it.
    """
    with open(folder / ".lock", "w") as lock:
        busy = f"Another process is changing {str(folder)!r}; wait until it is done."
        lock_file(lock, folder, busy=busy)
        yield


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    path.write_text(json.dumps(meta, indent=2) + "\n")


def _digest(part: Path) -> str:
    """Returns what tells a new part from others: its rows, where they lie, and their names."""
    digest = hashlib.sha256()
    for name in ("rows.parquet", "vectors.faiss", "entities.parquet", "part.json"):
        with (part / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _next(index: Snapshot, what: str) -> str:
    """Returns a name for a new file or folder."""
    return f"{what}-{index.generation + 1:04d}"


def _save(index: Snapshot, what: str, array: np.ndarray) -> str:
    name = _next(index, what) + ".npy"
    np.save(index.folder / name, array)
    return name


def _delete(index: Snapshot, meta: dict[str, Any], rows: np.ndarray) -> None:
    before = np.flatnonzero(~index.live)
    gone = np.unique(np.r_[before, rows])
    _count_changed(meta, len(gone) - len(before))
    if len(gone):
        meta["deleted"] = _save(index, "deleted", gone)


def _count_changed(meta: dict[str, Any], rows: int) -> None:
    """Notes that a calibration knows nothing of some rows, or of their absence."""
    if meta.get("calibration"):
        known = meta["calibration"]
        meta["calibration"] = known | {"changed": known["changed"] + rows}


def _remove_unnamed(folder: Path, meta: dict[str, Any]) -> None:
    """Removes the files that a killed change left and those that a finished one replaced."""
    calibration = (meta.get("calibration") or {}).get("file")
    named = {*meta["parts"], meta["deleted"], meta["map"], calibration}
    kinds = ("part-*", "deleted-*", "map-*", "calibration-*")
    for path in [path for kind in kinds for path in folder.glob(kind)]:
        if path.name not in named:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replaced(index: Snapshot, new: IndexPart, root: str) -> np.ndarray:
    """Returns the rows with images at the same places as those of a new part."""
    new_places = places(new.column(*_PLACE)).drop_null()
    found = [np.zeros(0, np.int64)]
    for begin, part in index.begins():
        same_root = np.array([origin.root == root for origin in part.origins])
        if same_root.any():
            stored = part.column(*_PLACE, "origin")
            known = pc.is_in(places(stored), value_set=new_places).to_numpy(zero_copy_only=False)
            found.append(begin + np.flatnonzero(known & same_root[stored["origin"].to_numpy()]))
    return np.concatenate(found)
