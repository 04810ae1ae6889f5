"""Rows of CSV and JSON lines, plain or compressed: a damaged row is the only one lost.

In: a path ending in .csv, .tsv or .jsonl, possibly followed by .gz, .bz2 or .zst; a CSV file starts
with a line of column names and is delimited by commas, semicolons or tabs. Out: Rows in the order
of the file; one that cannot be read says why. Types are not guessed: the values of CSV are text,
those of JSON have their JSON types.

An unclosed quote would swallow the rest of a CSV file. Such a row, or one with too many lines, is
given up, and reading continues at its second line.
"""

import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from openmofi.errors import InputError
from openmofi.files.lines import TruncatedFile, content_suffix, read_lines
from openmofi.refused import Refused

JSON_LINES = ".jsonl"
SHOWN_CHARS = 200
"""Characters of a refused row that are kept for inspection."""
_MAX_LINES = 1000
_MAX_FIELD_CHARS = 1 << 24
_DELIMITERS = ",\t;"
_OLD_MAC_LINES = re.compile(rb"(?<=\r)(?!\n)")
_JSON = msgspec.json.Decoder()


class Row(NamedTuple):
    """One row of a table."""

    line: int
    """Number of its first line, from 1."""
    fields: dict[str, Any]
    """Values by column; empty if they could not be read."""
    refused: Refused | None = None
    """Why it is left out. bad_csv: a quote is not closed, or not followed by the delimiter;
    too_many_fields: perhaps an unquoted delimiter; field_too_long: more than 16 million characters;
    not_utf8; bad_json; bad_structure: JSON, but not an object; truncated_file, trailing_garbage:
    the file is damaged after the preceding rows."""


def read_rows(
    path: Path, *, strict: bool = True, is_row: Callable[[list[str]], bool] | None = None
) -> Iterator[Row]:
    """Yields the rows of a file of CSV or JSON lines; blank lines are skipped.

    Args:
        path: the file.
        strict: refuse a row in which anything is wrong. Otherwise text that is not UTF-8 keeps its
            bytes (`as_bytes` returns them), and what follows a closing quote belongs to the field.
        is_row: tells whether the values of a line look like a row of their own. A quoted field with
            such a line in it was closed by another row's quote.

    Raises:
        InputError: the file is UTF-16 or UTF-32.
    """
    if content_suffix(path) == JSON_LINES:
        return read_json_lines(path, strict=strict)
    return read_csv(path, strict=strict, is_row=is_row)


def as_bytes(text: str) -> bytes:
    """Returns the bytes that a file held; a lone surrogate from JSON stays invalid UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _damaged(line: int, error: TruncatedFile) -> Refused:
    return Refused(error.damage.reason, line, error.damage.message)


def beginning(line: bytes) -> str:
    """Returns the beginning of a refused line as text, whatever its bytes."""
    return line[: 4 * SHOWN_CHARS].decode(errors="replace")[:SHOWN_CHARS]


# ---- JSON lines --------------------------------------------------------------------------------


def read_json_lines(path: Path, *, strict: bool = True) -> Iterator[Row]:
    """Yields the rows of a file of JSON lines, whatever its name; see `read_rows`."""
    number = 0
    try:
        for number, line in read_lines(path):
            if line.strip():
                yield _json_row(number, line, strict=strict)
    except TruncatedFile as error:
        refused = _damaged(number + 1, error)
        yield Row(refused.line, {}, refused)


def _json_row(number: int, line: bytes, *, strict: bool) -> Row:
    error = ""
    fields: Any = None
    try:
        fields = _JSON.decode(line)
    except (msgspec.DecodeError, RecursionError):
        error = "bad_json"
    except UnicodeDecodeError:
        error = "not_utf8"
    if error and not strict:
        try:
            fields, error = json.loads(line.decode("utf-8", "surrogateescape")), ""
        except (ValueError, RecursionError):
            error = "bad_json"
    if not error and not isinstance(fields, dict):
        error = "bad_structure"
    if error:
        return Row(number, {}, Refused(error, number, beginning(line)))
    return Row(number, fields)


# ---- CSV ---------------------------------------------------------------------------------------


def read_header(path: Path, *, strict: bool = True) -> tuple[list[str], str]:
    """Returns the column names and the delimiter of a CSV file; an empty one has no names.

    Raises:
        InputError: the file is damaged or, if `strict`, its first line is not UTF-8.
    """
    damage: list[Refused] = []
    first = next(_text_lines(path, damage), _Line(1, "", True))
    if damage:
        raise InputError(f"{path} is damaged ({damage[0].text}); expected a complete file.")
    if strict and not first.is_utf8:
        raise InputError(
            f"The first line of {path}, with the names of the columns, is not UTF-8; convert it, "
            f"for example with: iconv -f latin1 -t utf-8 {path} > utf8.csv"
        )
    delimiter = max(_DELIMITERS, key=first.text.count)
    return [name.strip() for name in _values_of(first.text, delimiter)[0]], delimiter


def read_csv(
    path: Path, *, strict: bool = True, is_row: Callable[[list[str]], bool] | None = None
) -> Iterator[Row]:
    """Yields the rows of a CSV file, whatever its name; see `read_rows`."""
    columns, delimiter = read_header(path, strict=strict)
    damage: list[Refused] = []
    source = _Lines(_text_lines(path, damage))
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    next(source, None)
    while True:
        source.taken.clear()
        error, note, values = "", "", []
        try:
            values = _next_row(reader)
        except StopIteration:
            break
        except (csv.Error, _EndlessRow) as problem:
            reader = csv.reader(source, delimiter=delimiter, strict=True)
            note = str(problem)
            error = "field_too_long" if "field limit" in note else "bad_csv"
            if error == "bad_csv" and not strict and len(source.taken) == 1:
                values, is_closed = _values_of(source.taken[0].text, delimiter)
                error = "" if is_closed else error
        first, *rest = source.taken
        if (
            is_row
            and not error
            and any(is_row(_values_of(line.text, delimiter)[0]) for line in rest)
        ):
            error, note = "bad_csv", "its quotes hold another row"
        if error:
            text = f"{first.text.strip()[:SHOWN_CHARS]} ({note})"
            yield Row(first.number, {}, Refused(error, first.number, text))
            source.give_back()
            continue
        if strict and not all(line.is_utf8 for line in source.taken):
            error = "not_utf8"
        elif any(values[len(columns) :]):
            error = "too_many_fields"
        if values:
            fields, refused = dict(zip(columns, values, strict=False)), None
            if error:
                refused = Refused(error, first.number, beginning(as_bytes(first.text)))
            yield Row(first.number, fields, refused)
    for refused in damage:
        yield Row(refused.line, {}, refused)


class _Line(NamedTuple):
    number: int
    text: str
    """With its line end; bytes that are not UTF-8 become surrogates."""
    is_utf8: bool


def _text_lines(path: Path, damage: list[Refused]) -> Iterator[_Line]:
    """Yields the lines of a file, also those that end in CR only, and notes where it breaks off."""
    number = 0
    try:
        for _, raw in read_lines(path, keep_ends=True):
            for line in filter(None, _OLD_MAC_LINES.split(raw)) if b"\r" in raw[:-2] else (raw,):
                number += 1
                try:
                    yield _Line(number, line.decode(), True)
                except UnicodeDecodeError:
                    yield _Line(number, line.decode("utf-8", "surrogateescape"), False)
    except TruncatedFile as error:
        damage.append(_damaged(number + 1, error))


class _EndlessRow(Exception):
    """Signals that a row has too many lines."""


class _Lines:
    """The lines of a file; the most recent ones can be given back."""

    def __init__(self, lines: Iterable[_Line]):
        self._lines = iter(lines)
        self._returned: deque[_Line] = deque()
        self.taken: list[_Line] = []
        """Lines of the row that is being read."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) == _MAX_LINES:
            raise _EndlessRow(f"a quoted field goes on for more than {_MAX_LINES} lines")
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.taken.append(line)
        return line.text

    def give_back(self) -> None:
        """Gives back all lines of the row but the first."""
        self._returned.extendleft(reversed(self.taken[1:]))


def _next_row(reader: Iterator[list[str]]) -> list[str]:
    """Returns the next row under our own field limit; csv has one global limit."""
    before = csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        return next(reader)
    finally:
        csv.field_size_limit(before)


def _values_of(line: str, delimiter: str) -> tuple[list[str], bool]:
    """Returns the values of a single line, read leniently, and whether its quotes are closed."""
    reader = csv.reader([line, "\n"], delimiter=delimiter)
    try:
        values = _next_row(reader)
    except csv.Error:
        return [], False
    return values, reader.line_num == 1
