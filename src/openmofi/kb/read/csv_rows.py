"""Splits the lines of a CSV file into rows, and survives quotes that nobody closed.

In: numbered lines. Out: Rows, of which one may go over several lines where a field is quoted; a
Rejection for what is none. A quote that is never closed would swallow the rest of the file: a row
that is no correct CSV, or goes on for too long, is given up, and reading goes on at its second
line.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from openmofi.kb.read.records import REJECT_CHARS, Rejection

_MAX_LINES = 100
_MAX_FIELD_CHARS = 1 << 24


class Row(NamedTuple):
    """One row."""

    line: int
    """Number of its first line."""
    values: list[str]


class _EndlessRow(Exception):
    """Says that a row does not end soon."""


class _Lines:
    """The lines of a file, of which the last ones can be given back."""

    def __init__(self, lines: Iterable[tuple[int, str]]):
        self._lines = iter(lines)
        self._returned: deque[tuple[int, str]] = deque()
        self.taken: list[tuple[int, str]] = []
        """Lines of the row that is being read."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) == _MAX_LINES:
            raise _EndlessRow(f"a quoted field goes on for more than {_MAX_LINES} lines")
        line = self._returned.popleft() if self._returned else next(self._lines)
        self.taken.append(line)
        return line[1]

    def give_back(self) -> None:
        """Gives back all lines of the row but the first."""
        self._returned.extendleft(reversed(self.taken[1:]))


def read_rows(lines: Iterable[tuple[int, str]], delimiter: str) -> Iterator[Row | Rejection]:
    """Yields rows; also empty ones, of blank lines.

    Reasons: bad_csv (a quote that is not closed, or is followed by more than the delimiter),
    field_too_long (more than 16 million characters).
    """
    source = _Lines(lines)
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        source.taken.clear()
        try:
            values = _next_row(rows)
        except StopIteration:
            return
        except (csv.Error, _EndlessRow) as error:
            number, text = source.taken[0]
            reason = "field_too_long" if "field limit" in str(error) else "bad_csv"
            yield Rejection(reason, number, f"{text.strip()[:REJECT_CHARS]} ({error})")
            source.give_back()
            rows = csv.reader(source, delimiter=delimiter, strict=True)
        else:
            yield Row(source.taken[0][0], values)


def _next_row(rows: Iterator[list[str]]) -> list[str]:
    """Returns the next row under a limit of our own; the csv module knows only one for all."""
    before = csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        return next(rows)
    finally:
        csv.field_size_limit(before)
