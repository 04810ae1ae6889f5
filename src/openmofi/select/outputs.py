"""A decided funnel -> the files of a selection, labels file by labels file.

keep.parquet        one row per kept image (schema.KEEP)
refused.parquet     one row per other image, with its reason (schema.REFUSED)
vocabulary.parquet  the entities, most images first (schema.VOCABULARY)
duplicates.parquet  the image that each refused duplicate repeats (schema.DUPLICATES)
shards.parquet      how much of each labels file was kept (schema.SELECTED_SHARDS)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.runs import run_starts
from openmofi.kb import KnowledgeBase
from openmofi.progress import track
from openmofi.schema import DUPLICATES, KEEP, REFUSED, SELECTED_SHARDS, TAUGHT, VOCABULARY
from openmofi.select.excluded_images import KnownImages
from openmofi.select.funnel import Funnel
from openmofi.select.repeats import Repeats
from openmofi.shards import Commit

_PLACE = ("key", "shard", "offset", "size", "path")
_OWN = ("row", "classes", "scores")


def write_vocabulary(out: Path, funnel: Funnel, kb: KnowledgeBase) -> np.ndarray:
    """Writes vocabulary.parquet, most images first; returns the class of each entity, or -1."""
    counts = np.bincount(funnel.labels.entity, minlength=len(funnel.chosen.ids))
    kept = np.flatnonzero(counts)
    ids = funnel.chosen.ids.take(pa.array(kept)).cast(pa.string())
    found = pa.table({"id": ids, "images": counts[kept]})
    order = pc.sort_indices(found, [("images", "descending"), ("id", "ascending")])
    class_of = np.full(len(counts), -1)
    class_of[kept[order.to_numpy()]] = np.arange(len(kept))
    found = found.take(order)
    rows = pa.array(kb.rows_of(found["id"].to_pylist()), pa.int64())
    texts = {"label": kb.texts.label, "description": kb.texts.description}
    columns = {name: text.take(rows).cast(pa.string()) for name, text in texts.items()}
    table = pa.table({"id": found["id"], **columns, "images": found["images"]}, schema=VOCABULARY)
    pq.write_table(table, out / "vocabulary.parquet")
    return class_of


def write_rows(
    out: Path,
    files: Sequence[Path],
    funnel: Funnel,
    class_of: np.ndarray,
    repeats: list[Repeats],
    known: KnownImages | None,
) -> None:
    """Writes keep.parquet, refused.parquet and duplicates.parquet."""
    schema = pa.schema([*KEEP, *TAUGHT]) if funnel.labels.priors.shape[1] else KEEP
    begins, labels = funnel.chosen.begins, funnel.labels
    cuts = np.searchsorted(labels.image, begins)
    # The images whose places duplicates.parquet names: the refused ones and those they repeat.
    named = [found.image for found in repeats]
    named += [found.of for found in repeats if found.reason != "evaluation_duplicate"]
    wanted = np.unique(np.concatenate(named)) if named else np.zeros(0, np.int64)
    columns = [name for name in KEEP.names if name not in _OWN]
    places = []
    with (
        pq.ParquetWriter(out / "keep.parquet", schema) as keep,
        pq.ParquetWriter(out / "refused.parquet", REFUSED) as refused,
    ):
        for number, path in enumerate(track(files, "write", unit="shards")):
            with pq.ParquetFile(path) as file:
                table = file.read(columns)
            begin, end = begins[number], begins[number + 1]
            mine = slice(cuts[number], cuts[number + 1])
            row, entity = labels.image[mine] - begin, labels.entity[mine]
            own = {"classes": class_of[entity], "scores": labels.score[mine]}
            own |= dict(zip((f.name for f in TAUGHT), labels.priors[mine].T, strict=False))
            _write(keep, _kept_rows(table, row, own, schema))
            code = funnel.code[begin:end]
            lost = np.flatnonzero(code)
            reason = pa.DictionaryArray.from_arrays(
                pa.array(code[lost], pa.int32()), pa.array(funnel.reasons)
            )
            taken = table.select(["key", "shard", "caption"]).take(pa.array(lost))
            about = {name: taken[name] for name in taken.column_names}
            about |= {"row": pa.array(lost, pa.int64()), "reason": reason.cast(pa.string())}
            _write(refused, pa.table(about, schema=REFUSED))
            low, high = np.searchsorted(wanted, (begin, end))
            rows = pa.array(wanted[low:high] - begin)
            places.append(table.select(_PLACE).take(rows))
    duplicates = _duplicates(repeats, pa.concat_tables(places), wanted, begins, known)
    pq.write_table(duplicates, out / "duplicates.parquet")


def write_shards(out: Path, done: Sequence[Commit], funnel: Funnel) -> None:
    """Writes shards.parquet."""
    begins = funnel.chosen.begins
    kept = np.r_[0, np.cumsum(funnel.code == 0)][begins]
    columns = {
        "shard": [commit.shard for commit in done],
        "file": [commit.file for commit in done],
        "pairs": np.diff(begins),
        "kept": np.diff(kept),
    }
    pq.write_table(pa.table(columns, schema=SELECTED_SHARDS), out / "shards.parquet")


def _write(writer: pq.ParquetWriter, table: pa.Table) -> None:
    if len(table):
        writer.write_table(table)


def _kept_rows(
    table: pa.Table, row: np.ndarray, of_labels: dict[str, np.ndarray], schema: pa.Schema
) -> pa.Table:
    begins = run_starts(row)
    offsets = pa.array(np.r_[begins, len(row)], pa.int32())
    rows = pa.array(row[begins], pa.int64())
    taken = table.take(rows)
    columns: dict[str, Any] = {name: taken[name] for name in taken.column_names}
    columns["row"] = rows
    for name, values in of_labels.items():
        kind = schema.field(name).type.value_type
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(values, kind))
    return pa.table(columns, schema=schema)


def _duplicates(
    repeats: list[Repeats],
    places: pa.Table,
    wanted: np.ndarray,
    begins: np.ndarray,
    known: KnownImages | None,
) -> pa.Table:
    """Returns one row per refused duplicate: its place and that of the image it repeats."""
    tables = [DUPLICATES.empty_table()]
    for found in repeats:
        own = places.take(pa.array(np.searchsorted(wanted, found.image)))
        file = np.searchsorted(begins, found.image, "right") - 1
        columns: dict[str, Any] = {name: own[name] for name in _PLACE}
        columns["row"] = pa.array(found.image - begins[file], pa.int64())
        columns["reason"] = pa.repeat(found.reason, len(own))
        columns["bits"] = pa.array(found.bits, pa.int32())
        if found.reason == "evaluation_duplicate":
            assert known is not None
            other = pa.Table.from_pylist([known.places[i] for i in found.of.tolist()], _KNOWN)
        else:
            other = places.take(pa.array(np.searchsorted(wanted, found.of)))
            other = other.append_column("root", pa.repeat("", len(own)))
        columns |= {f"of_{name}": other[name] for name in ("root", *_PLACE)}
        tables.append(pa.table(columns, schema=DUPLICATES))
    return pa.concat_tables(tables)


_KNOWN = pa.schema([("root", pa.string()), *[KEEP.field(name) for name in _PLACE]])
