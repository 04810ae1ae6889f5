"""Image files with a CSV / JSONL of captions, or with a .txt or .json each -> schema.PAIRS.

img2dataset's format `files` has both: the .txt holds the caption, the .json also url and uid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.files.hidden import is_hidden
from openmofi.files.remote import FoundFile, Root
from openmofi.images.formats import is_image, unread_reason
from openmofi.pairs.caption import caption_of
from openmofi.pairs.columns import check_captions, pairs_table, raw_texts
from openmofi.pairs.listing import LISTING_SUFFIXES, iterate_listing
from openmofi.pairs.rows import CAPTION_COLUMNS, PATH_COLUMNS, pick_column

LISTING_NAMES = tuple(f"{s}{x}" for s in ("captions", "metadata") for x in LISTING_SUFFIXES)
_CHUNK = 10_000
_ENTRIES = pa.schema(
    [
        ("number", pa.int64()),  # line of a listing
        ("file", pa.binary()),  # relative to the folder
        ("caption", pa.binary()),
        ("error", pa.string()),
    ]
)


def folder_files(root: Root, found: Sequence[FoundFile]) -> list[FoundFile]:
    """Returns the top-level listing, else all listings, else the folder if it contains images."""
    listings = [file for file in found if PurePosixPath(file.path).name in LISTING_NAMES]
    on_top = [file for name in LISTING_NAMES for file in listings if file.path == name]
    images = any(is_image(file.path) for file in found)
    return on_top[:1] or listings or [FoundFile(".", 0, 0)] * images


def read_folder(
    path: Path, name: str, start: int = 0, stop: int | None = None, *, check_files: bool = True
) -> tuple[pa.Table, None]:
    """Returns (pairs of a folder, or of a listing with files relative to it; None).

    Args:
        path: the folder or listing.
        name: the same relative to the input's root.
        start: first row.
        stop: row behind the last; None: all.
        check_files: refuse rows whose image file is missing, which takes a system call each.

    Raises:
        InputError: no image is listed, or a listing lacks a column or does not match its suffix.
    """
    entries = _entries(path)
    if not len(entries):
        raise InputError(f"{str(path)!r} lists no images; expected at least one.")
    entries = entries.slice(start, None if stop is None else stop - start)
    raw_files = [file or b"" for file in entries["file"].to_pylist()]
    files = [file.decode("utf-8", "replace") for file in raw_files]
    found, folder, prefix = entries["caption"], path.parent, PurePosixPath(name).parent
    urls = None
    if path.is_dir():
        folder, prefix = path, PurePosixPath(name)
        records = [record_beside(path, file) for file in raw_files]
        urls = pa.array([str(record.get("url") or "") for record in records], pa.string())
        texts = []
        for file, record in zip(raw_files, records, strict=True):
            text = _read_beside(path, file, b".txt")
            if text is None and record:
                inside = caption_of(record)
                is_text = isinstance(inside, str)
                text = inside.encode("utf-8", "surrogatepass") if is_text else inside
            texts.append(text)
        found = pa.array(texts, pa.binary())
    captions, errors = check_captions(raw_texts(found))
    if check_files:
        there = pa.array([_is_file(folder, file) for file in files], pa.bool_())
    else:
        there = pa.array([bool(file) for file in files], pa.bool_())
    unread = pa.array([unread_reason(file) for file in files], errors.type)
    errors = pc.if_else(pc.equal(unread, ""), errors, unread)
    errors = pc.if_else(there, errors, "image_missing")
    damaged = pc.not_equal(entries["error"], "")
    errors = pc.if_else(damaged, entries["error"].cast(errors.type), errors)
    below = "" if str(prefix) == "." else f"{prefix}/"
    paths = [below + file if file and not file.startswith("/") else file for file in files]
    numbers = entries["number"].to_pylist()
    keys = [key or f"line {number}" for key, number in zip(paths, numbers, strict=True)]
    columns = {"caption": captions, "error": errors, "url": urls}
    return pairs_table(key=pa.array(keys), shard="", path=pa.array(paths), **columns), None


def count_entries(path: Path) -> int:
    """Returns the number of rows of a folder or listing and caches them for `read_folder`.

    Raises:
        InputError: as `read_folder`.
    """
    return len(_entries(path))


def _entries(path: Path) -> pa.Table:
    stat = path.stat()
    return _entries_at(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)
def _entries_at(path: Path, size: int, mtime_ns: int) -> pa.Table:
    """Returns _ENTRIES; cached, since a process reads the parts of a listing one by one."""
    return _images(path) if path.is_dir() else _listed(path)


def _images(folder: Path) -> pa.Table:
    files = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inside = os.path.relpath(place, folder)
        below = "" if inside == "." else inside + os.sep
        shown = [name for name in names if is_image(name) and not is_hidden(name)]
        files += [(below + name).split(os.sep) for name in shown]
    raw = [os.fsencode("/".join(parts)) for parts in sorted(files)]
    columns = pa.nulls(len(raw), pa.int64()), pa.array(raw, pa.binary())
    rest = pa.nulls(len(raw), pa.binary()), pa.array([""] * len(raw), pa.string())
    return pa.table([*columns, *rest], schema=_ENTRIES)


def _listed(path: Path) -> pa.Table:
    """Returns the records of a listing, read in chunks, since line objects take much memory."""
    names: dict[str, None] = {}
    lines, batches = iterate_listing(path), []
    columns: tuple[str | None, str | None] = None, None
    while chunk := list(islice(lines, _CHUNK)):
        names.update(dict.fromkeys(name for line in chunk for name in line.fields))
        columns = pick_column(list(names), PATH_COLUMNS), pick_column(list(names), CAPTION_COLUMNS)
        file, caption = (column or "" for column in columns)
        rows = [
            {
                "number": line.number,
                "file": line.fields.get(file),
                "caption": line.fields.get(caption),
                "error": line.error,
            }
            for line in chunk
        ]
        batches.append(pa.RecordBatch.from_pylist(rows, schema=_ENTRIES))
    if names and not all(columns):
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names)}; expected a file "
            f"({' | '.join(PATH_COLUMNS)}) and a caption ({' | '.join(CAPTION_COLUMNS)})."
        )
    return pa.Table.from_batches(batches, _ENTRIES)


def record_beside(folder: Path, file: bytes) -> dict[str, Any]:
    """Returns an image's .json; {} if there is none or it is damaged."""
    raw = _read_beside(folder, file, b".json")
    try:
        record = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        record = {}
    return record if isinstance(record, dict) else {}


def _read_beside(folder: Path, file: bytes, suffix: bytes) -> bytes | None:
    stem, _ = os.path.splitext(os.path.join(os.fsencode(folder), file))
    try:
        with open(stem + suffix, "rb") as beside:
            return beside.read()
    except (FileNotFoundError, IsADirectoryError):
        return None


def _is_file(folder: Path, file: str) -> bool:
    try:
        # An undecodable name is not found: its text would not lead to the file again.
        return bool(file) and os.path.isfile(os.path.join(folder, file))
    except (OSError, ValueError):  # a name that is too long or contains a zero byte
        return False
