"""Images as files: with a CSV / JSONL of captions, or a .txt beside each -> schema.PAIRS."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from openmofi.errors import InputError
from openmofi.pairs.caption import check_caption, plain_name
from openmofi.pairs.parquet import CAPTION_COLUMNS, PATH_COLUMNS, pick_column
from openmofi.schema import PAIRS

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
LISTING_SUFFIXES = (".csv", ".jsonl")
_LISTING_STEMS = ("captions", "metadata")
_SURPLUS = "\0surplus"


def find_listing(folder: Path) -> Path | None:
    """Returns captions.csv, metadata.jsonl or the like, if the folder has one."""
    candidates = (folder / f"{s}{x}" for s in _LISTING_STEMS for x in LISTING_SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_folder(path: Path, name: str) -> tuple[pa.Table, str | None]:
    """Returns (pairs, None) of a folder, or of a listing whose files lie relative to it.

    Raises:
        InputError: it lists nothing, or a listing lacks a column or is not what its suffix says.
    """
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
        yield _row(folder, str(image.relative_to(folder)), raw)


@dataclass(frozen=True)
class Line:
    """A record of a listing."""

    number: int
    """Line of the file on which it begins."""
    fields: dict[str, bytes]
    error: str = ""
    """Reason for refusing it: too_many_fields, bad_csv or bad_json."""


def _listed(path: Path) -> Iterator[dict]:
    lines = read_listing(path)
    names = list(dict.fromkeys(name for line in lines for name in line.fields))
    file_column = pick_column(names, PATH_COLUMNS) or ""
    caption_column = pick_column(names, CAPTION_COLUMNS) or ""
    if names and not (file_column and caption_column):
        raise InputError(
            f"{str(path)!r} has the columns {', '.join(names)}; expected a file "
            f"({' | '.join(PATH_COLUMNS)}) and a caption ({' | '.join(CAPTION_COLUMNS)})."
        )
    for line in lines:
        file = line.fields.get(file_column, b"").decode("utf-8", "replace")
        pair = _row(path.parent, file, line.fields.get(caption_column))
        if line.error:
            pair |= {"status": "error", "error": line.error}
        yield pair if file else pair | {"key": f"line {line.number}"}


def read_listing(path: Path) -> list[Line]:
    """Returns the records of a .csv (of commas, semicolons or tabs) or .jsonl file."""
    limit = csv.field_size_limit(sys.maxsize)  # or a field of 128 KiB would end the reading
    try:
        return list(_csv_lines(path) if path.suffix == ".csv" else _jsonl_lines(path))
    finally:
        csv.field_size_limit(limit)


def _csv_lines(path: Path) -> Iterator[Line]:
    # Latin-1 maps every byte to one character and back, so that one caption in a wrong encoding
    # is refused by itself instead of the whole file.
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    lines = list(io.StringIO(text, newline=""))
    delimiter = max(",\t;", key=lines[0].count) if lines else ","
    reader = csv.reader(lines, delimiter=delimiter)
    names = [_raw(name).decode("utf-8", "replace").strip() for name in next(reader, [])]
    begin = reader.line_num
    while begin < len(lines):
        reader, first = csv.reader(lines[begin:], delimiter=delimiter), begin
        for values in reader:
            end = first + reader.line_num
            if end == len(lines) and _is_open(lines[begin:end], delimiter):
                # A quote that nobody closes would swallow all lines to the end.
                yield Line(begin + 1, {}, "bad_csv")
                begin += 1
                break
            if values:
                yield _csv_line(begin + 1, names, values)
            begin = end


def _csv_line(number: int, names: list[str], values: list[str]) -> Line:
    # An unquoted comma cuts the caption short; what is left would be taken for all of it.
    error = "too_many_fields" if any(values[len(names) :]) else ""
    return Line(number, dict(zip(names, map(_raw, values), strict=False)), error)


def _raw(text: str) -> bytes:
    return text.encode("latin-1")


def _is_open(lines: list[str], delimiter: str) -> bool:
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end" in str(error)
    return False


def _jsonl_lines(path: Path) -> Iterator[Line]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield Line(number, {k: _bytes(v) for k, v in record.items() if v is not None})
        else:
            yield Line(number, {}, "bad_json")


def _bytes(value: object) -> bytes:
    """Returns the bytes that the file held; half of a surrogate pair stays none of UTF-8."""
    try:
        return str(value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return str(value).encode("utf-8", "surrogatepass")


def _row(folder: Path, file: str, caption: bytes | None) -> dict:
    text, error = check_caption(caption)
    if not _is_file(folder, file):
        error = "image_missing"
    file = plain_name(file)
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


def _is_file(folder: Path, file: str) -> bool:
    try:
        # A name that only the disk can spell would not be found again by its text.
        return bool(file) and (folder / plain_name(file)).is_file()
    except (OSError, ValueError):  # a name too long for any file, or with a zero byte
        return False
