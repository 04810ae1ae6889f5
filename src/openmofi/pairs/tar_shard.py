"""One WebDataset tar, with its Parquet sidecar if there is one -> schema.PAIRS."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.arrays.strings import slices
from openmofi.images.formats import unread_reason
from openmofi.pairs.caption import CAPTION_COLUMNS, caption_of, check_caption
from openmofi.pairs.columns import check_captions, pairs_table, plain_texts, raw_texts, repeated
from openmofi.pairs.rows import pick_column
from openmofi.pairs.tar import Members, scan_tar
from openmofi.pairs.tar_samples import IMAGE, JSON, TXT, UNREAD, extensions, group


def read_tar(path: Path, name: str) -> tuple[pa.Table, str | None]:
    """Returns (pairs in archive order, why the archive ends early or None).

    Raises:
        OSError: the file cannot be opened or read.
    """
    members = scan_tar(path)
    first, key_size, slots = group(members.names, members.name_ends, *extensions())
    starts = members.name_ends[first]
    keys = _keys(*slices(members.names, starts, starts + key_size))
    sidecar = _sidecar(path, keys)
    captions, errors = _captions(path, members, slots, sidecar)
    image = slots[:, IMAGE]
    found = image >= 0
    why_not = np.full(len(slots), "no_image", dtype=object)
    for sample in np.flatnonzero(~found & (slots[:, UNREAD] >= 0)).tolist():
        start, end = members.name_ends[slots[sample, UNREAD] :][:2]
        file = members.names[start:end].tobytes().decode("utf-8", "replace")
        why_not[sample] = unread_reason(file)
    table = pairs_table(
        key=keys,
        shard=name,
        offset=np.where(found, _taken(members.offsets, image), -1),
        size=np.where(found, _taken(members.sizes, image), 0),
        caption=captions,
        url=sidecar.url,
        error=pc.if_else(pa.array(found), errors, pa.array(why_not, pa.large_string())),
    )
    return table, members.damage


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Returns the .json of each sample by key; damaged ones are left out.

    Raises:
        OSError: the file cannot be opened or read.
    """
    members = scan_tar(path)
    first, key_size, slots = group(members.names, members.name_ends, *extensions())
    starts = members.name_ends[first]
    keys = _keys(*slices(members.names, starts, starts + key_size)).to_pylist()
    found = {}
    with path.open("rb", buffering=0) as file:
        for sample in np.flatnonzero(slots[:, JSON] >= 0).tolist():
            [raw] = _read(file.fileno(), members, slots[sample : sample + 1, JSON])
            try:
                record = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                found[keys[sample]] = record
    return found


def _taken(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    return values[places] if len(values) else np.zeros(len(places), np.int64)


def _keys(offsets: np.ndarray, data: np.ndarray) -> pa.LargeStringArray:
    buffers = pa.py_buffer(offsets), pa.py_buffer(data)
    keys = pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)
    try:
        keys.validate(full=True)
    except pa.ArrowInvalid:  # undecodable bytes become U+FFFD
        raw = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(keys), [None, *buffers])
        plain = [key.decode("utf-8", "replace") for key in raw.to_pylist()]
        keys = pa.array(plain, pa.large_string())
    return keys


@dataclass(frozen=True)
class _Sidecar:
    """What the sidecar says about each sample."""

    caption: pa.LargeBinaryArray
    """Null: unknown."""
    url: pa.Array | pa.ChunkedArray


def _sidecar(path: Path, keys: pa.LargeStringArray) -> _Sidecar:
    """Returns img2dataset's table in the tar's order; an unreadable one is ignored."""
    none = _Sidecar(pa.nulls(len(keys), pa.large_binary()), repeated("", len(keys)))
    sidecar = path.with_suffix(".parquet")
    if not sidecar.is_file():
        return none
    try:
        with pq.ParquetFile(sidecar) as file:
            known = file.schema_arrow.names
            name = pick_column(known, CAPTION_COLUMNS)
            names = {"key", "url", name or ""} & set(known)
            table = file.read(columns=sorted(names), use_threads=False)
    except (pa.ArrowInvalid, OSError):
        return none
    if "key" not in names or not len(table):
        return none
    place = _last_places(keys, table["key"])
    caption = raw_texts(table[name]).take(place) if name else none.caption
    url = plain_texts(table["url"].take(place), len(keys)) if "url" in names else none.url
    return _Sidecar(caption, url)


def _last_places(keys: pa.Array, among: pa.ChunkedArray) -> pa.Array:
    """Returns for each key the last row of `among` that holds it; null: no row does."""
    if not (pa.types.is_string(among.type) or pa.types.is_large_string(among.type)):
        return pa.nulls(len(keys), pa.int64())
    turned = pa.array(np.arange(len(among))[::-1])
    found = pc.index_in(keys, value_set=among.cast(pa.large_string()).take(turned))
    return pc.subtract(len(among) - 1, found.cast(pa.int64()))


def _captions(
    path: Path, members: Members, slots: np.ndarray, sidecar: _Sidecar
) -> tuple[pa.Array, pa.Array]:
    """Returns (captions, reasons), from the sidecar, else the .txt, else the .json."""
    captions, errors = check_captions(sidecar.caption)
    open_rows = sidecar.caption.is_null().to_numpy(zero_copy_only=False)
    in_txt = open_rows & (slots[:, TXT] >= 0)
    in_json = open_rows & ~in_txt & (slots[:, JSON] >= 0)
    with path.open("rb", buffering=0) as file:
        txt = _read(file.fileno(), members, slots[in_txt, TXT])
        record = _read(file.fileno(), members, slots[in_json, JSON])
    if txt:
        read = check_captions(pa.array(txt, pa.large_binary()))
        captions, errors = _replaced(captions, in_txt, read[0]), _replaced(errors, in_txt, read[1])
    if record:
        pairs = [_of_json(raw) for raw in record]
        texts, reasons = (pa.array(part, pa.large_string()) for part in zip(*pairs, strict=True))
        captions, errors = _replaced(captions, in_json, texts), _replaced(errors, in_json, reasons)
    return captions, errors


def _read(fd: int, members: Members, which: np.ndarray) -> list[bytes]:
    if not len(which):
        return []
    places = zip(members.sizes[which].tolist(), members.offsets[which].tolist(), strict=True)
    return [os.pread(fd, size, offset) for size, offset in places]


def _replaced(column: pa.Array, where: np.ndarray, values: pa.Array) -> pa.Array:
    if where.all():
        return values
    return pc.replace_with_mask(column, pa.array(where), values)


class _Record(msgspec.Struct):
    """The part of img2dataset's metadata that is read."""

    caption: str


_RECORD = msgspec.json.Decoder(_Record)


def _of_json(raw: bytes) -> tuple[str, str]:
    """Returns (caption, reason for refusing it or "")."""
    try:
        return check_caption(_RECORD.decode(raw).caption)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass  # a lone surrogate, another encoding, name or type: left to the lenient reader below
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):  # or another encoding, or deeply nested brackets
        return "", "bad_json"
    return check_caption(caption_of(record) if isinstance(record, dict) else None)
