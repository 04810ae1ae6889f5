"""Listings of files and captions, .csv or .jsonl -> records; a damaged one costs itself alone."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmofi.files.wide import refuse_wide
from openmofi.images.formats import is_image
from openmofi.pairs.caption import CAPTION_COLUMNS, text_of
from openmofi.pairs.rows import PATH_COLUMNS, pick_column

LISTING_SUFFIXES = (".csv", ".jsonl")


@dataclass(frozen=True)
class Line:
    """A record of a listing."""

    number: int
    """Line of the file on which it begins."""
    fields: dict[str, bytes]
    error: str = ""
    """Reason for refusing it: too_many_fields, bad_csv or bad_json."""


def read_listing(path: Path) -> list[Line]:
    """Returns the records of a .csv (of commas, semicolons or tabs) or .jsonl file."""
    return list(iterate_listing(path))


def iterate_listing(path: Path) -> Iterator[Line]:
    """Yields the records of `read_listing` one by one.

    Raises:
        InputError: the file is UTF-16 or UTF-32.
    """
    limit = csv.field_size_limit(sys.maxsize)  # or a field of 128 KiB would end the reading
    try:
        yield from _csv_lines(path) if path.suffix == ".csv" else _jsonl_lines(path)
    finally:
        csv.field_size_limit(limit)


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    refuse_wide(data, path)
    return data.removeprefix(b"\xef\xbb\xbf")


def _csv_lines(path: Path) -> Iterator[Line]:
    # Latin-1 maps every byte to one character and back, so that one caption in a wrong encoding
    # is refused by itself instead of the whole file.
    text = _content(path).decode("latin-1")
    lines = list(io.StringIO(text, newline=""))
    delimiter = max(",\t;", key=lines[0].count) if lines else ","
    reader = csv.reader(lines, delimiter=delimiter)
    names = [_raw(name).decode("utf-8", "replace").strip() for name in next(reader, [])]
    file = pick_column(names, PATH_COLUMNS)
    place = names.index(file) if file else len(names)
    begin = reader.line_num
    while begin < len(lines):
        first = begin
        reader = csv.reader((lines[i] for i in range(first, len(lines))), delimiter=delimiter)
        for values in reader:
            end = first + reader.line_num
            if _swallows(lines, begin, end, delimiter, place):
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


def _swallows(lines: list[str], begin: int, end: int, delimiter: str, place: int) -> bool:
    """Says whether a quote closed nowhere, or by the quote of another row, makes rows a caption."""
    wrong = _error(lines[begin:end], delimiter) if end > begin + 1 or end == len(lines) else ""
    if end == begin + 1:
        return "unexpected end" in wrong
    return bool(wrong) or _holds_rows(lines[begin + 1 : end], delimiter, place)


def _error(lines: list[str], delimiter: str) -> str:
    """Returns what is wrong with the quotes of a row, or ""."""
    try:
        list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error)
    return ""


def _holds_rows(lines: list[str], delimiter: str, place: int) -> bool:
    """Says whether any of these lines names an image where rows do, so that it is one itself."""
    for line in lines:
        values = next(csv.reader([line], delimiter=delimiter), [])
        if len(values) > max(place, 1) and is_image(_raw(values[place]).decode("utf-8", "replace")):
            return True
    return False


def _jsonl_lines(path: Path) -> Iterator[Line]:
    for number, line in enumerate(_content(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield Line(number, dict(_fields(record)))
        else:
            yield Line(number, {}, "bad_json")


def _fields(record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yields what a record holds as bytes; under a name of captions, nothing but text counts."""
    for name, value in record.items():
        text = text_of(value) if name in CAPTION_COLUMNS else value
        if value is not None or name in CAPTION_COLUMNS:
            yield name, b"" if text is None else _bytes(text)


def _bytes(value: object) -> bytes:
    """Returns the bytes that the file held; half of a surrogate pair stays none of UTF-8."""
    try:
        return str(value).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return str(value).encode("utf-8", "surrogatepass")
