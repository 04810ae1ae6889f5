"""Changes of an index on disk; each is visible whole or not at all.

A change writes new files next to the old ones, then replaces meta.json, which lists the valid
files, and then removes the others. A process that has the index open keeps its old state.
"""

from __future__ import annotations

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
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.embeddings import read_embeddings
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import (
    check_replaceable,
    lock_file,
    new_folder,
    replace_file,
    sync_tree,
)
from openmofi.search.part import write_part
from openmofi.search.snapshot import FORMAT_VERSION, Snapshot, is_index
from openmofi.search.write import describe, kind_for, merge_parts, prepare_rows

_MOST_PARTS = 8
_TAIL_SHARE = 0.1
"""Share of the first part above which the later parts, searched row by row, are merged into it."""
_LEAST_TAIL = 10_000


def build(source: Path | str, out: Path, settings: IndexSettings, *, kb: Path | str | None) -> None:
    """Writes an index of vectors; see `Index.build`."""
    check_replaceable(out, is_index, "an index")
    rows, vectors = _read(source)
    described = describe(rows, kb)
    kind = kind_for(settings, len(rows))
    tables = prepare_rows(rows, described)
    meta = {
        "format_version": FORMAT_VERSION,
        "id": uuid.uuid4().hex,
        "generation": 1,
        "rows": len(rows),
        "dim": vectors.shape[1],
        "kind": kind,
        "settings": asdict(settings),
        "model": described.model,
        "kb": described.kb,
        "selection": described.origin.selection,
        "parts": ["part-0001"],
        "deleted": None,
        "map": None,
    }
    busy = _locked(out) if is_index(out) else nullcontext()
    with busy, new_folder(out) as partial:
        folder, origins = partial / "part-0001", [described.origin]
        write_part(folder, vectors, *tables, origins, kind=kind, settings=settings)
        _write_meta(partial / "meta.json", meta)


def add(index: Snapshot, source: Path | str) -> None:
    """Adds vectors as a part; see `Index.add`."""
    rows, vectors = _read(source)
    described = describe(rows, index.meta["kb"] or None)
    if vectors.shape[1] != index.meta["dim"]:
        raise InputError(
            f"{str(source)!r} holds vectors of {vectors.shape[1]} numbers, the index of "
            f"{index.meta['dim']}; embed with the model {index.meta['model']!r}."
        )
    if described.model != index.meta["model"]:
        raise InputError(
            f"{str(source)!r} was made by the model {described.model!r}, the index by "
            f"{index.meta['model']!r}; their vectors cannot be compared."
        )
    tables, origins = prepare_rows(rows, described), [described.origin]
    with _changing(index) as meta:
        name = _next(index, "part")
        write_part(
            index.folder / name, vectors, *tables, origins, kind="flat", settings=IndexSettings()
        )
        meta["parts"] = [*meta["parts"], name]
        meta["rows"] = index.num_rows + len(rows)
        _delete(index, meta, _replaced(index, rows, described.origin.root))


def merge_if_due(index: Snapshot) -> None:
    """Merges the parts if there are many, or if many rows are searched one by one."""
    tail, first = index.num_rows - len(index.parts[0]), len(index.parts[0])
    if len(index.parts) <= _MOST_PARTS and tail <= max(_LEAST_TAIL, _TAIL_SHARE * first):
        return
    with _changing(index) as meta:
        name = _next(index, "part")
        if meta["kind"] == "flat":
            meta["kind"] = kind_for(index.settings, index.num_rows)
        merge_parts(index.folder / name, index.parts, kind=meta["kind"], settings=index.settings)
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
        meta["kind"] = kind_for(settings, len(keep))
        merge_parts(
            index.folder / name, index.parts, keep=keep, kind=meta["kind"], settings=settings
        )
        meta |= {"parts": [name], "rows": len(keep), "deleted": None}
        meta["settings"] = asdict(settings)
        points = index.map_points()
        if points is not None:
            meta["map"] = _save(index, "map", points[keep])


def set_map(index: Snapshot, points: Float[np.ndarray, "rows 2"]) -> None:
    """Stores the position of each row on a map."""
    with _changing(index) as meta:
        meta["map"] = _save(index, "map", points.astype(np.float32))


@contextmanager
def _changing(index: Snapshot) -> Iterator[dict[str, Any]]:
    """Yields a copy of meta.json to change; if no error occurs, it replaces meta.json.

    Raises:
        InputError: another process is changing the index.
        MismatchError: the index has changed since it was opened.
    """
    with _locked(index.folder):
        if not index.is_current():
            raise MismatchError(f"{str(index.folder)!r} has changed in the meantime; try again.")
        _remove_unnamed(index.folder, index.meta)
        meta = dict(index.meta)
        yield meta
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


def _read(source: Path | str) -> tuple[pa.Table, np.ndarray]:
    """Returns (rows, their vectors); of several rows with the same image, the last is kept.

    Raises:
        InputError: there are no vectors, or some are not finite.
    """
    found = read_embeddings(source)
    rows, vectors = found.rows, found.vectors
    for reason, count in found.refused.items():
        print(f"left out {count:,} rows: {reason}", file=sys.stderr)
    if not np.isfinite(vectors).all():
        raise InputError(f"{str(source)!r} holds vectors that are not finite; embed it again.")
    places = _places(rows).combine_chunks().dictionary_encode().indices
    numbers = np.where(_lies_somewhere(rows), places.to_numpy(), -1 - np.arange(len(rows)))
    _, last = np.unique(numbers[::-1], return_index=True)
    keep = np.sort(len(rows) - 1 - last)
    if len(keep) == len(rows):
        return rows, vectors
    print(f"left out {len(rows) - len(keep):,} repeated images", file=sys.stderr)
    return rows.take(pa.array(keep)), vectors[keep]


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    path.write_text(json.dumps(meta, indent=2) + "\n")


def _next(index: Snapshot, what: str) -> str:
    """Returns a name for a new file or folder."""
    return f"{what}-{index.generation + 1:04d}"


def _save(index: Snapshot, what: str, array: np.ndarray) -> str:
    name = _next(index, what) + ".npy"
    np.save(index.folder / name, array)
    return name


def _delete(index: Snapshot, meta: dict[str, Any], rows: np.ndarray) -> None:
    gone = np.unique(np.r_[np.flatnonzero(~index.live), rows])
    if len(gone):
        meta["deleted"] = _save(index, "deleted", gone)


def _remove_unnamed(folder: Path, meta: dict[str, Any]) -> None:
    """Removes the files that a killed change left and those that a finished one replaced."""
    named = {*meta["parts"], meta["deleted"], meta["map"]}
    for path in [*folder.glob("part-*"), *folder.glob("deleted-*"), *folder.glob("map-*")]:
        if path.name not in named:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replaced(index: Snapshot, rows: pa.Table, root: str) -> np.ndarray:
    """Returns the rows with images at the same places as those of new rows."""
    rows = rows.filter(pa.array(_lies_somewhere(rows)))
    new, found = _places(rows).combine_chunks(), [np.zeros(0, np.int64)]
    for begin, part in index.begins():
        same_root = np.array([origin.root == root for origin in part.origins])
        if same_root.any():
            stored = part.column("shard", "path", "offset", "origin")
            known = pc.is_in(_places(stored), value_set=new).to_numpy()
            found.append(begin + np.flatnonzero(known & same_root[stored["origin"].to_numpy()]))
    return np.concatenate(found)


def _places(table: pa.Table) -> pa.ChunkedArray:
    names = [table[n].cast(pa.string()).fill_null("") for n in ("shard", "path", "offset")]
    return pc.binary_join_element_wise(*names, "\0")


def _lies_somewhere(table: pa.Table) -> np.ndarray:
    """Returns whether each row names its image's place; vectors of other tools may not."""
    named = pc.not_equal(table["path"].fill_null(""), "")
    return pc.or_(named, pc.greater_equal(table["offset"].fill_null(-1), 0)).to_numpy()
