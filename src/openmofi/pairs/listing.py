"""Listings of files and captions, .csv or .jsonl -> records; only damaged ones are lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openmofi.files.tables import as_bytes, read_header, read_rows
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
    """Reason for refusing it: too_many_fields, field_too_long, bad_csv or bad_json."""


def read_listing(path: Path) -> list[Line]:
    """Returns the records of a .jsonl or a .csv file (with commas, semicolons or tabs)."""
    return list(iterate_listing(path))


def iterate_listing(path: Path) -> Iterator[Line]:
    """Yields the records of `read_listing` one by one.

    A caption in another encoding keeps its bytes, so that only this pair is refused.

    Raises:
        InputError: the file is UTF-16 or UTF-32.
    """
    names = read_header(path, strict=False)[0] if path.suffix == ".csv" else []
    file = pick_column(names, PATH_COLUMNS)
    place = names.index(file) if file else len(names)

    def names_an_image(values: list[str]) -> bool:
        return len(values) > max(place, 1) and is_image(values[place])

    for row in read_rows(path, strict=False, is_row=names_an_image):
        error = row.refused.reason if row.refused else ""
        error = "bad_json" if error == "bad_structure" else error
        fields = {}
        for name, value in row.fields.items():
            is_caption = name in CAPTION_COLUMNS
            text = text_of(value) if is_caption else value
            if value is not None or is_caption:
                fields[name] = b"" if text is None else as_bytes(str(text))
        yield Line(row.line, fields, error)
