"""Decided blocks -> the files of a selection, row group by row group of the labels.

keep.parquet        one row per kept image (schema.KEEP)
refused.parquet     one row per other image, with its reason (schema.REFUSED)
vocabulary.parquet  the entities, most images first (schema.VOCABULARY)
duplicates.parquet  the image that each refused duplicate repeats (schema.DUPLICATES)
shards.parquet      how much of each labels file was kept (schema.SELECTED_SHARDS)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.arrays.runs import run_starts
from openmofi.kb import KnowledgeBase
from openmofi.schema import DUPLICATES, KEEP, REFUSED, SELECTED_SHARDS, TAUGHT, VOCABULARY
from openmofi.select.blocks import Block, Budget, LabelBlocks, Piece, run_pass
from openmofi.select.excluded_images import KnownImages
from openmofi.select.repeats import REASONS
from openmofi.select.verdicts import RowVerdicts, read_verdict
from openmofi.shards import Commit

_PLACE = ("key", "shard", "offset", "size", "path")
_OWN = ("row", "classes", "scores")
_PLACES = pa.schema(
    [("image", pa.int64()), ("root", pa.string()), *[KEEP.field(name) for name in _PLACE]]
)
"""Places of images that refused ones repeat; with a root, those of --exclude, from 0."""
_REFUSED = pa.schema(
    [
        *_PLACES,
        ("row", pa.int64()),
        ("of", pa.int64()),
        ("bits", pa.int32()),
        ("reason", pa.int32()),
    ]
)
_JOIN = """
    SELECT refused.*, kept.root AS of_root, kept.key AS of_key, kept.shard AS of_shard,
        kept.offset AS of_offset, kept.size AS of_size, kept.path AS of_path
    FROM refused JOIN places AS kept
        ON kept.image = refused.of AND (kept.root = '') = (refused.reason > 0)
    ORDER BY refused.reason, refused.image
"""
_JOINED_ROWS = 100_000
_JOIN_BYTES = 250_000_000
"""Bytes that even a small join takes; nothing else is in memory then."""


def write_vocabulary(out: Path, counts: np.ndarray, kb: KnowledgeBase) -> np.ndarray:
    """Writes vocabulary.parquet, most images first; returns the class of each entity, or -1.

    Args:
        out: folder of the selection.
        counts: kept images of every entity of the knowledge base.
        kb: the knowledge base.
    """
    kept = np.flatnonzero(counts)
    kept = kept[np.lexsort((kb.id_ranks[kept], -counts[kept]))]
    class_of = np.full(len(counts), -1, np.int32)
    class_of[kept] = np.arange(len(kept))
    texts = {"id": kb.ids, "label": kb.texts.label, "description": kb.texts.description}
    rows = pa.array(kept)
    columns = {name: text.take(rows).cast(pa.string()) for name, text in texts.items()}
    table = pa.table({**columns, "images": counts[kept]}, schema=VOCABULARY)
    pq.write_table(table, out / "vocabulary.parquet")
    return class_of


@dataclass(frozen=True)
class _Task:
    """A row group of the labels: which one of which block."""

    block: Block
    number: int

    @property
    def piece(self) -> Piece:
        """The row group."""
        return self.block.pieces[self.number]

    @property
    def num_rows(self) -> int:
        """Its rows."""
        return self.piece.num_rows


@dataclass(frozen=True)
class _Rows:
    """The rows of a row group, in the tables that they go to."""

    keep: pa.Table
    refused: pa.Table
    duplicates: pa.Table
    repeated: pa.Table


def write_rows(
    out: Path, labels: LabelBlocks, verdicts: Path, known: KnownImages | None, *, taught: bool
) -> None:
    """Writes keep.parquet, refused.parquet and duplicates.parquet.

    Args:
        out: folder of the selection.
        labels: all labels.
        verdicts: folder of what `write_verdicts` wrote of every block.
        known: the images of --exclude.
        taught: whether labels have priors that images taught.
    """
    schema = pa.schema([*KEEP, *TAUGHT]) if taught else KEEP
    tasks = [_Task(block, number) for block in labels.blocks for number in range(len(block.pieces))]

    def rows_of(task: _Task) -> _Rows:
        return _rows_of(task.piece, read_verdict(verdicts, task.block, task.number), schema)

    refused, places = verdicts / "refused.parquet", verdicts / "places.parquet"
    with (
        # Hardly any key, caption or URL comes twice.
        pq.ParquetWriter(out / "keep.parquet", schema, use_dictionary=["shard"]) as to_keep,
        pq.ParquetWriter(
            out / "refused.parquet", REFUSED, use_dictionary=["shard", "reason"]
        ) as to_refused,
        pq.ParquetWriter(refused, _REFUSED) as to_duplicates,
        pq.ParquetWriter(places, _PLACES) as to_places,
    ):
        if known is not None:
            of_known = [{"image": i, **place} for i, place in enumerate(known.places)]
            to_places.write_table(pa.Table.from_pylist(of_known, _PLACES))
        for rows in run_pass(tasks, rows_of, "write", threads=labels.budget.threads):
            _write(to_keep, rows.keep)
            _write(to_refused, rows.refused)
            _write(to_duplicates, rows.duplicates)
            _write(to_places, rows.repeated)
    _write_duplicates(out / "duplicates.parquet", refused, places, labels.budget)


def write_shards(out: Path, done: Sequence[Commit], pairs: np.ndarray, kept: np.ndarray) -> None:
    """Writes shards.parquet.

    Args:
        out: folder of the selection.
        done: the commits of the labels files.
        pairs: rows of each file.
        kept: those that were kept.
    """
    columns = {
        "shard": [commit.shard for commit in done],
        "file": [commit.file for commit in done],
        "pairs": pairs,
        "kept": kept,
    }
    pq.write_table(pa.table(columns, schema=SELECTED_SHARDS), out / "shards.parquet")


def _rows_of(piece: Piece, verdict: RowVerdicts, schema: pa.Schema) -> _Rows:
    columns = [name for name in KEEP.names if name not in _OWN]
    with pq.ParquetFile(piece.path) as file:
        table = file.read_row_group(piece.group, columns)
    own = {"classes": verdict.classes, "scores": verdict.scores}
    own |= dict(zip((f.name for f in TAUGHT), verdict.priors.T, strict=False))
    lost = np.flatnonzero(verdict.code)
    reason = pa.DictionaryArray.from_arrays(
        pa.array(verdict.code[lost], pa.int32()), pa.array(verdict.reasons)
    )
    taken = table.select(["key", "shard", "caption"]).take(pa.array(lost))
    about = {name: taken[name] for name in taken.column_names}
    about |= {"row": pa.array(lost, pa.int64()), "reason": reason.cast(pa.string())}
    row = verdict.repeats["image"] - verdict.begin
    repeats = {name: verdict.repeats[name] for name in ("of", "bits", "reason")}
    return _Rows(
        _kept_rows(table, verdict.row, own, schema),
        pa.table(about, schema=REFUSED),
        pa.table(_places(table, row, verdict) | repeats | {"row": row}, schema=_REFUSED),
        pa.table(_places(table, verdict.repeated - verdict.begin, verdict), schema=_PLACES),
    )


def _places(table: pa.Table, row: np.ndarray, verdict: RowVerdicts) -> dict[str, Any]:
    """Returns the columns of _PLACES of some rows."""
    taken = table.select(_PLACE).take(pa.array(row))
    columns = {name: taken[name] for name in _PLACE}
    return columns | {"image": row + verdict.begin, "root": pa.repeat("", len(row))}


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


def _write(writer: pq.ParquetWriter, table: pa.Table) -> None:
    if len(table):
        writer.write_table(table)


def _write_duplicates(path: Path, refused: Path, places: Path, budget: Budget) -> None:
    """Joins the refused duplicates with the places of what they repeat."""
    import duckdb

    config: dict[str, bool | float | int | list[str] | str] = {
        "memory_limit": f"{budget.each * budget.threads + _JOIN_BYTES}B",
        "threads": budget.threads,
        "temp_directory": str(refused.parent),
    }
    with duckdb.connect(config=config) as connection:
        for name, file in (("refused", refused), ("places", places)):
            connection.read_parquet(str(file)).create_view(name)
        found = connection.sql(_JOIN).to_arrow_reader(_JOINED_ROWS)
        with pq.ParquetWriter(path, DUPLICATES) as writer:
            for batch in found:
                reasons = pa.array(REASONS).take(batch["reason"])
                columns = {name: batch[name] for name in DUPLICATES.names} | {"reason": reasons}
                writer.write_table(pa.table(columns, schema=DUPLICATES))
