"""A selection -> the refused images that may show something unknown, and some that are known.

Of the images whose captions name nothing, whose label the image refused, or whose labels people
called wrong, those are looked at whose captions bear a phrase that many of them bear; and, to tell
what is known already, some kept images of each entity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi import schema
from openmofi.arrays.hashing import Hasher
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.arrays.splitmix64 import finalise
from openmofi.select.selection import Selection

REASONS = ("no_mention", "picture_disagrees", "corrected")
_MOST = 1_000_000
"""Refused images that are looked through; of more, so many are drawn."""
_BATCH = 65_536
_PLACE = ("key", "shard", "offset", "size", "path", "url")
_KNOWN_OF_EACH = 16
_LEAST_OF_EACH = 4
_MOST_KNOWN = 50_000


@dataclass(frozen=True)
class RefusedImages:
    """Refused images in a random order that depends on their keys alone."""

    file: np.ndarray
    """Number of the labels file."""
    row: np.ndarray
    """Row of that file."""
    caption: pa.ChunkedArray
    all: int
    """How many there are; some may not have been drawn."""

    def __len__(self) -> int:
        return len(self.row)

    @property
    def drawn(self) -> float:
        """The share that was drawn."""
        return len(self) / max(self.all, 1)


def refused_images(selection: Selection, *, most: int = _MOST) -> RefusedImages:
    """Returns the refused images that may show something unknown; about `most` of more."""
    funnel = selection.card["funnel"]["refused"]
    total = sum(funnel.get(reason, 0) for reason in REASONS)
    limit = np.uint64(min(most / max(total, 1), 1.0) * (2**64 - 2**11)) + np.uint64(2**11 - 1)
    pairs, kept = (selection.shards[name].to_numpy() for name in ("pairs", "kept"))
    ends = np.cumsum(pairs - kept)
    seed = np.uint64(random_key(0, Purpose.MISSING))
    numbers, rows, captions, draws, begin = [], [], [], [], 0
    columns, wanted = ["key", "shard", "row", "caption", "reason"], pa.array(REASONS)
    with pq.ParquetFile(selection.folder / "refused.parquet") as file:
        for batch in file.iter_batches(_BATCH, columns=columns):
            places = begin + np.arange(len(batch))
            begin += len(batch)
            fits = pc.and_(pc.is_in(batch["reason"], wanted), pc.not_equal(batch["caption"], ""))
            mask = pc.fill_null(fits, False).to_numpy(zero_copy_only=False)
            draw = finalise(_place_keys(batch["shard"], batch["key"]) ^ seed)
            mask &= draw <= limit
            chosen = pa.array(np.flatnonzero(mask))
            numbers.append(places[mask])
            rows.append(batch["row"].take(chosen).to_numpy())
            captions.append(batch["caption"].take(chosen).cast(pa.large_string()))
            draws.append(draw[mask])
    number, row, draw = (
        np.concatenate([np.zeros(0, np.int64), *x]) for x in (numbers, rows, draws)
    )
    order = np.lexsort((number, draw.astype(np.uint64)))
    caption = pa.chunked_array(captions, pa.large_string()).take(pa.array(order))
    file_of = np.searchsorted(ends, number[order].astype(np.int64), "right")
    return RefusedImages(file_of, row[order].astype(np.int64), caption, total)


def all_captions(selection: Selection) -> Iterator[pa.Array]:
    """Yields the captions of all pairs in batches."""
    for path in selection.files:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, columns=["caption"]):
                yield pc.fill_null(batch["caption"], "").cast(pa.large_string())


def listing_of(selection: Selection, images: RefusedImages, chosen: np.ndarray) -> pa.Table:
    """Returns rows of schema.KEEP of some of the images, numbered from 0 in `row`."""
    parts = []
    for number in np.unique(images.file[chosen]).tolist():
        places = np.flatnonzero(images.file[chosen] == number)
        rows = images.row[chosen][places]
        with pq.ParquetFile(selection.files[number]) as file:
            begin = 0
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                mine = (rows >= begin) & (rows < begin + size)
                if mine.any():
                    table = file.read_row_group(group, [*_PLACE, "caption"])
                    table = table.take(pa.array(rows[mine] - begin))
                    parts.append(_as_keep(table, places[mine]))
                begin += size
    empty = schema.KEEP.empty_table()
    return pa.concat_tables([empty, *parts]).sort_by("row")


def known_images(selection: Selection, begin: int) -> tuple[pa.Table, list[str]]:
    """Returns rows of schema.KEEP of some kept images, and the entity of each.

    Args:
        selection: what keeps them.
        begin: the number that the first of them gets in `row`.
    """
    classes, _ = selection.first_classes()
    count = np.bincount(classes, minlength=len(selection.vocabulary))
    each = int(np.clip(_MOST_KNOWN // max((count > 0).sum(), 1), _LEAST_OF_EACH, _KNOWN_OF_EACH))
    most = np.argsort(-count, kind="stable")[: _MOST_KNOWN // _LEAST_OF_EACH]
    seed = np.uint64(random_key(1, Purpose.MISSING))
    draw = finalise(np.arange(len(classes), dtype=np.uint64) ^ seed)
    order = np.lexsort((draw, classes))
    of = classes[order]
    rank = np.arange(len(of)) - np.searchsorted(of, of)
    chosen = np.sort(order[(rank < each) & np.isin(of, most)])
    parts, at = [schema.KEEP.empty_table()], 0
    with pq.ParquetFile(selection.folder / "keep.parquet") as file:
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            mine = chosen[(chosen >= at) & (chosen < at + size)]
            if len(mine):
                table = file.read_row_group(group, [*_PLACE, "caption"])
                parts.append(_as_keep(table.take(pa.array(mine - at)), np.zeros(len(mine))))
            at += size
    table = pa.concat_tables(parts)
    numbers = pa.array(begin + np.arange(len(table)), pa.int64())
    table = table.set_column(table.column_names.index("row"), "row", numbers)
    return table, selection.vocabulary["id"].take(pa.array(classes[chosen])).to_pylist()


def write_listing(folder: Path, table: pa.Table, source: str, digest: str) -> None:
    """Writes images as `embed` reads a selection."""
    pq.write_table(table, folder / "keep.parquet", compression="zstd", row_group_size=4096)
    pq.write_table(schema.VOCABULARY.empty_table(), folder / "vocabulary.parquet")
    (folder / "card.json").write_text(json.dumps({"input": source, "made_of": digest}))


def _as_keep(table: pa.Table, numbers: np.ndarray) -> pa.Table:
    count = len(table)
    columns = {name: table[name] for name in table.column_names}
    columns["row"] = pa.array(numbers.astype(np.int64))
    columns["text_area"] = pa.nulls(count, pa.float32())
    none = pa.array([[]] * count, pa.list_(pa.int32()))
    columns |= {"classes": none, "scores": none.cast(pa.list_(pa.float32()))}
    return pa.table({name: columns[name] for name in schema.KEEP.names}).cast(schema.KEEP)


def _place_keys(shards: pa.Array, keys: pa.Array) -> np.ndarray:
    hasher = Hasher(0)
    shard, key = (pc.fill_null(column, "").cast(pa.string()) for column in (shards, keys))
    return finalise(hasher.strings(shard)) ^ hasher.strings(key)
