"""Stage 8, embed: a model and images (or texts) -> unit vectors in a Parquet file."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi import schema
from openmofi.errors import InputError
from openmofi.files.folders import local_file, replace_file
from openmofi.files.remote import Root, open_root
from openmofi.images.look import decode
from openmofi.model import MofiModel, load_model
from openmofi.pairs import ImageReader, find_shards, read_shard
from openmofi.progress import progress
from openmofi.refused import Refused

_CHUNK = 1024
_PLACE = ("key", "shard", "path", "offset", "size")
# An image without a usable caption can be embedded all the same.
_CAPTION_ERRORS = frozenset(
    {"no_caption", "caption_not_utf8", "caption_too_long", "bad_json", "too_many_fields"}
)


@dataclass(frozen=True)
class EmbedSummary:
    """What was embedded."""

    out: Path
    rows: int
    dim: int
    refused: dict[str, int]


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


def embed(
    model: str | Path | MofiModel, path: Path | str, *, out: Path | str, device: str = "auto"
) -> EmbedSummary:
    """Embeds every readable image at a path.

    Args:
        model: a dual encoder, its directory or hub id.
        path: tars, Parquet files, a folder, a listing, or the output of `select`, whose entities
            are carried along.
        out: the Parquet file to write (schema.embeddings).
        device: auto, cpu, cuda or cuda:N.

    Raises:
        InputError: nothing can be read there.
    """
    out = local_file(out)
    places = find_places(path)
    _check_place(out, Path(path), places)
    encoder = load_model(model, device=device) if isinstance(model, (str, Path)) else model
    out.parent.mkdir(parents=True, exist_ok=True)
    table_schema = schema.embeddings(encoder.dim).with_metadata(
        {
            "openmofi.model": _lasting_name(str(model)) if isinstance(model, (str, Path)) else "",
            "openmofi.root": str(places.root.resolve()),
            "openmofi.selection": str(places.selection.resolve()) if places.selection else "",
        }
    )
    with replace_file(out) as partial:
        rows, unreadable = _write_vectors(encoder, places, partial, table_schema)
        refused = Counter(places.refused) + unreadable
        if not rows:
            raise _nothing_read(path, refused)
    return EmbedSummary(out, rows, encoder.dim, dict(refused))


def _write_vectors(
    encoder: MofiModel, places: Places, file: Path, table_schema: pa.Schema
) -> tuple[int, Counter[str]]:
    """Returns (rows written, unreadable images by reason)."""
    rows, refused = 0, Counter()
    with (
        progress("embed", total=len(places.table), unit="images") as bar,
        pq.ParquetWriter(file, table_schema) as writer,
    ):
        for chunk, vectors, unreadable in encode_places(encoder, places):
            writer.write_table(_with_vectors(chunk, vectors, table_schema))
            rows += len(chunk)
            refused += unreadable
            bar.advance(len(chunk) + unreadable.total())
    return rows, refused


def _lasting_name(model: str) -> str:
    """Returns the name by which `search` finds the model again, from wherever it is called."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _check_place(out: Path, path: Path, places: Places) -> None:
    """Refuses to put the file where it would be taken for a shard of the same input."""
    tars = all(shard.endswith(".tar") for shard in places.table["shard"].unique().to_pylist())
    if path.is_dir() and not tars and out.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"--out {str(out)!r} lies inside the input {str(path)!r}, where it would be "
            "taken for a shard the next time; choose a place beside it."
        )


def _nothing_read(path: Path | str, refused: Counter[str]) -> InputError:
    why = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
    return InputError(f"No image of {str(path)!r} can be read: {why or 'there is none'}.")


def find_places(path: Path | str) -> Places:
    """Returns the images at a path; of a selection, its kept images and their entities.

    Raises:
        InputError: there is none, or no shard can be read.
    """
    path = Path(path)
    if (path / "keep.parquet").is_file():
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
        usable = [not e or e in _CAPTION_ERRORS for e in pairs.table["error"].to_pylist()]
        refused.update(
            e for e, good in zip(pairs.table["error"].to_pylist(), usable, strict=True) if not good
        )
        if pairs.damage:
            refused[pairs.damage] += 1
        tables.append(pairs.table.filter(pa.array(usable, pa.bool_())))
    if not any(map(len, tables)):
        raise _nothing_read(path, refused)
    table = pa.concat_tables(tables).select([*_PLACE, "caption", "url"])
    none = pa.array([[]] * len(table), pa.list_(pa.string()))
    return Places(table.append_column("entities", none), source.root, dict(refused))


def _selected_places(path: Path) -> Places:
    keep = pq.read_table(path / "keep.parquet")
    ids = pq.read_table(path / "vocabulary.parquet")["id"].to_pylist()
    entities = [[ids[c] for c in classes] for classes in keep["classes"].to_pylist()]
    known = {"scores": "label_scores", "text_area": "text_area", "row": "labels_row"}
    carried = {name: name for name in (*_PLACE, "caption", "url")} | known
    carried = {name: new for name, new in carried.items() if name in keep.column_names}
    table = keep.select(list(carried)).rename_columns(list(carried.values()))
    table = table.append_column("entities", pa.array(entities, pa.list_(pa.string())))
    root = json.loads((path / "card.json").read_text())["input"]
    return Places(table, open_root(root), {}, path)


def encode_places(
    encoder: MofiModel, places: Places
) -> Iterator[tuple[pa.Table, np.ndarray, Counter[str]]]:
    """Yields (rows that could be read, their vectors [n, dim], the others by reason).

    The rows have a further column `place`: their number in places.table.
    """
    numbers = pa.array(np.arange(len(places.table)), pa.int64())
    table = places.table.append_column("place", numbers)
    reader = ImageReader(places.root)
    for start in range(0, len(places.table), _CHUNK):
        chunk = table.slice(start, _CHUNK)
        pixels, good, refused = [], [], Counter()
        for i, row in enumerate(chunk.select(["shard", "path", "offset", "size"]).to_pylist()):
            decoded = decode(reader.read, row, encoder.transform)
            if isinstance(decoded, Refused):
                refused[decoded.reason] += 1
            else:
                pixels.append(decoded[0])
                good.append(i)
        if good:
            yield chunk.take(pa.array(good)), encoder.encode_pixels(np.stack(pixels)), refused
        else:
            yield chunk.slice(0, 0), np.zeros((0, encoder.dim), np.float32), refused


def _with_vectors(rows: pa.Table, vectors: np.ndarray, table_schema: pa.Schema) -> pa.Table:
    halves = pa.array(vectors.astype(np.float16).ravel())
    vector = pa.FixedSizeListArray.from_arrays(halves, vectors.shape[1])
    rows = rows.rename_columns({"key": "id"}).append_column("vector", vector)
    for field in table_schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows.select(table_schema.names).cast(table_schema)
