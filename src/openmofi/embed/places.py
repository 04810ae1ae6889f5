"""Where the images of an input lie: the rows of its shards, or those that a selection keeps."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.files.remote import Root, open_root
from openmofi.pairs import Input, count_errors, find_shards, read_shard
from openmofi.pairs.find import cut_shard
from openmofi.shards import Shard

_PLACE = ("key", "shard", "path", "offset", "size")
# An image without a usable caption can be embedded all the same.
_CAPTION_ERRORS = (
    *("no_caption", "caption_not_utf8", "caption_too_long", "bad_json", "too_many_fields"),
)


@dataclass(frozen=True)
class Places:
    """Where images lie and what is known of them."""

    table: pa.Table
    """Columns key, shard, path, offset, size, caption, entities; url and, of a selection,
    label_scores, text_area and labels_row, where they are known."""
    root: Root
    refused: dict[str, int]
    selection: Path | None = None
    """The selection that keeps the images."""


def find_places(path: Path | str) -> Places:
    """Returns the images at a path; of a selection, its kept images and their entities.

    Raises:
        InputError: there is none, or no shard can be read.
    """
    path = Path(path)
    if is_selection(path):
        return _selected_places(path)
    source = find_shards(path)
    tables, refused = [], Counter()
    for shard in source.shards:
        try:
            pairs = read_shard(source.root, shard)
        except (InputError, OSError) as error:
            if len(source.shards) == 1:
                raise
            print(f"left out {shard.path}: {error}", file=sys.stderr)
            refused["unreadable_shard"] += 1
            continue
        usable = has_image(pairs.table)
        refused += count_errors(pairs.table.filter(pc.invert(usable)))
        if pairs.damage:
            refused[pairs.damage] += 1
        tables.append(pairs.table.filter(usable))
    if not any(map(len, tables)):
        raise nothing_read(path, refused)
    table = pa.concat_tables(tables).select([*_PLACE, "caption", "url"])
    none = pa.array([[]] * len(table), pa.list_(pa.string()))
    return Places(table.append_column("entities", none), source.root, dict(refused))


def has_image(pairs: pa.Table) -> pa.ChunkedArray:
    """Returns which rows of schema.PAIRS may have an image, with or without a usable caption."""
    return pc.is_in(pairs["error"], value_set=pa.array(["", *_CAPTION_ERRORS]))


def nothing_read(path: Path | str, refused: Mapping[str, int]) -> InputError:
    """Returns the error of an input without a readable image."""
    why = ", ".join(f"{reason} {count:,}" for reason, count in Counter(refused).most_common())
    return InputError(f"No image of {str(path)!r} can be read: {why or 'there is none'}.")


def _selected_places(path: Path) -> Places:
    keep = pq.read_table(path / "keep.parquet")
    return Places(selected_rows(path, keep), _selected_root(path), {}, path)


# ---- a selection --------------------------------------------------------------------------------


def is_selection(path: Path) -> bool:
    """Returns whether a folder is an output of `openmofi select`."""
    return (path / "keep.parquet").is_file()


def find_selected(path: Path) -> Input:
    """Returns where a selection's images lie, and shards whose rows are those of keep.parquet."""
    stat = (path / "keep.parquet").stat()
    whole = Shard("keep", "keep.parquet", "parquet", stat.st_size, stat.st_mtime_ns)
    return Input(_selected_root(path), tuple(cut_shard(path, whole)))


def read_selected(path: Path, shard: Shard) -> pa.Table:
    """Returns the rows of a shard of `find_selected`, see `selected_rows`."""
    with pq.ParquetFile(path / "keep.parquet", memory_map=True) as file:
        counts = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        begins = np.cumsum([0, *counts])[:-1]
        stop = math.inf if shard.stop is None else shard.stop
        groups = np.flatnonzero((begins >= shard.start) & (begins < stop)).tolist()
        return selected_rows(path, file.read_row_groups(groups))


def selected_rows(path: Path, keep: pa.Table) -> pa.Table:
    """Returns the columns of `Places.table` for rows of a selection's keep.parquet."""
    ids = pq.read_table(path / "vocabulary.parquet")["id"].to_pylist()
    entities = [[ids[c] for c in classes] for classes in keep["classes"].to_pylist()]
    known = {"scores": "label_scores", "text_area": "text_area", "row": "labels_row"}
    carried = {name: name for name in (*_PLACE, "caption", "url")} | known
    carried = {name: new for name, new in carried.items() if name in keep.column_names}
    table = keep.select(list(carried)).rename_columns(list(carried.values()))
    return table.append_column("entities", pa.array(entities, pa.list_(pa.string())))


def _selected_root(path: Path) -> Root:
    return open_root(json.loads((path / "card.json").read_text())["input"])
