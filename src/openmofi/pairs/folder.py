"""Images as files: with a CSV / JSONL of captions, or a .txt beside each -> schema.PAIRS."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.pairs.parquet import CAPTION_COLUMNS, PATH_COLUMNS, pick_column
from openmofi.schema import PAIRS

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
LISTING_SUFFIXES = (".csv", ".jsonl")
_LISTING_STEMS = ("captions", "metadata")


def find_listing(folder: Path) -> Path | None:
    """Returns captions.csv, metadata.jsonl or the like, if the folder has one."""
    candidates = (folder / f"{s}{x}" for s in _LISTING_STEMS for x in LISTING_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_folder(path: Path, name: str) -> tuple[pa.Table, str | None]:
    """Returns (pairs, None) of a folder, or of a listing whose files lie relative to it."""
    rows = list(_beside(path) if path.is_dir() else _listed(path))
    if not rows:
        raise InputError(f"{str(path)!r} lists no pictures; expected at least one.")
    return pa.Table.from_pylist(rows, schema=PAIRS), None


def _beside(folder: Path) -> Iterator[dict]:
    for image in sorted(folder.rglob("*")):
        if image.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        text = image.with_suffix(".txt")
        raw = text.read_bytes() if text.is_file() else None
        yield _row(str(image.relative_to(folder)), raw, image.is_file())


def _listed(path: Path) -> Iterator[dict]:
    lines = _csv_rows(path) if path.suffix == ".csv" else _jsonl_rows(path)
    file_column = caption_column = None
    for row in lines:
        if file_column is None or caption_column is None:
            names = [str(column) for column in row]
            file_column = pick_column(names, PATH_COLUMNS)
            caption_column = pick_column(names, CAPTION_COLUMNS)
            if file_column is None or caption_column is None:
                raise InputError(
                    f"{str(path)!r} has the columns {', '.join(names)}; expected a file "
                    f"({' | '.join(PATH_COLUMNS)}) and a caption ({' | '.join(CAPTION_COLUMNS)})."
                )
        file = (row.get(file_column) or b"").decode("utf-8", "replace")
        yield _row(file, row.get(caption_column), bool(file) and (path.parent / file).is_file())


def _csv_rows(path: Path) -> Iterator[dict[str, bytes]]:
    # Latin-1 maps every byte to one character and back, so that one caption in a wrong encoding
    # is refused by itself instead of the whole file.
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    for row in csv.DictReader(io.StringIO(text)):
        yield {key: (value or "").encode("latin-1") for key, value in row.items() if key}


def _jsonl_rows(path: Path) -> Iterator[dict[str, bytes]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8", "surrogateescape"))
        except ValueError:
            raise InputError(f"Line {number} of {str(path)!r} is not JSON.") from None
        yield {k: str(v).encode("utf-8", "surrogateescape") for k, v in record.items() if v}


def _row(file: str, caption: bytes | None, exists: bool) -> dict:
    text, error = "", "no_caption"
    if caption is not None:
        try:
            text, error = caption.decode("utf-8"), ""
        except UnicodeDecodeError:
            text, error = caption.decode("utf-8", "replace"), "caption_not_utf8"
    if not exists:
        error = "image_missing"
    return {
        "key": file,
        "shard": "",
        "offset": -1,
        "size": 0,
        "path": file,
        "caption": text,
        "url": "",
        "status": "error" if error else "ok",
        "error": error,
    }
