"""Listings of files and captions, .csv or .jsonl -> records; a damaged one costs itself alone."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """Yields the records of `read_listing` one by one."""
    limit = csv.field_size_limit(sys.maxsize)  # or a field of 128 KiB would end the reading
    try:
        yield from _csv_lines(path) if path.suffix == ".csv" else _jsonl_lines(path)
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
