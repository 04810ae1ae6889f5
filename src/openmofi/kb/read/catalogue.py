"""Reads a user's own catalogue: a CSV or TSV file with one entity a line.

In: a column of ids and `name`; optional `aliases` (separated by |), `description`, `weight`,
`image` and a column of types (`type`, `types`, `coarse` or `category`). Out: an EntityRecord per
usable line, a Rejection for the others. `structured.py` reads the same from JSONL and Parquet.
"""

import csv
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files.lines import TruncatedFile, read_lines
from openmofi.kb.read.csv_rows import read_rows
from openmofi.kb.read.records import REJECT_CHARS, EntityRecord, Records, Rejection

_TYPE_COLUMNS = ("type", "types", "coarse", "category")
_LANGUAGE = "und"  # ISO 639-2: undetermined
MAX_WEIGHT = 1e30
"""Its powers, of which priors are made, must stay finite."""


def read_catalogue(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every line of a catalogue.

    Reasons: not_utf8, bad_csv (an unclosed quote), too_many_fields (an unquoted delimiter),
    field_too_long, no_id, no_name, bad_weight (not a number, negative or huge), truncated_file,
    trailing_garbage.

    Raises:
        InputError: the header lacks the id or the name column, or the file is empty.
    """
    columns, delimiter = read_header(path)
    id_column = find_id_column(path, columns, settings.id_column)
    require_column("name", columns, path)
    refused: list[Rejection] = []
    for row in read_rows(_decoded(path, refused), delimiter):
        yield from refused
        refused.clear()
        if isinstance(row, Rejection):
            yield row
        elif row.line > 1 and any(row.values[len(columns) :]):
            text = delimiter.join(row.values)[:REJECT_CHARS]
            yield Rejection("too_many_fields", row.line, text)
        elif row.line > 1 and any(row.values):
            fields = dict(zip(columns, row.values, strict=False))
            yield record_of(fields, row.line, id_column)
    yield from refused


def read_header(path: Path) -> tuple[list[str], str]:
    """Returns the column names and the delimiter of a catalogue.

    Raises:
        InputError: the file is damaged, empty or not UTF-8.
    """
    try:
        first = next((line for _, line in read_lines(path)), b"")
    except TruncatedFile as error:
        raise InputError(f"{path} is damaged ({error}); expected a complete file.") from None
    try:
        header = first.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(
            f"The first line of {path} is not UTF-8, but a catalogue must be; convert it, "
            f"for example with: iconv -f latin1 -t utf-8 {path} > utf8.csv"
        ) from None
    if not header.strip():
        raise InputError(f"{path} is empty, but a catalogue starts with a line of column names.")
    delimiter = max(",\t;", key=header.count)
    columns = next(csv.reader([header], delimiter=delimiter))
    return [column.strip() for column in columns], delimiter


def find_id_column(path: Path, columns: list[str], wanted: str) -> str:
    """Returns the column of ids: the wanted one, or the only one that ends in _id.

    Raises:
        InputError: there is none.
    """
    if wanted in columns:
        return wanted
    candidates = [column for column in columns if column.endswith("_id")]
    if wanted == KBSettings.id_column and len(candidates) == 1:
        return candidates[0]
    raise _missing(wanted, columns, path, "; name the column of ids with --id-column")


def require_column(wanted: str, columns: list[str], path: Path) -> None:
    """Checks that a catalogue has a column.

    Raises:
        InputError: it has not.
    """
    if wanted not in columns:
        raise _missing(wanted, columns, path, "; rename one of them to it")


def _missing(wanted: str, columns: list[str], path: Path, advice: str) -> InputError:
    close = get_close_matches(wanted, columns, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    found = ", ".join(columns)
    return InputError(f"{path} has no column {wanted!r}{hint}, only: {found}{advice}.")


def _decoded(path: Path, refused: list[Rejection]) -> Iterator[tuple[int, str]]:
    """Yields the lines that are UTF-8 with their numbers, and notes the others."""
    number = 0
    try:
        for number, line in read_lines(path):
            try:
                yield number, line.decode() + "\n"
            except UnicodeDecodeError:
                text = line.decode(errors="replace")[:REJECT_CHARS]
                refused.append(Rejection("not_utf8", number, text))
    except TruncatedFile as error:
        refused.append(Rejection(error.damage.reason, number, error.damage.message))


def record_of(fields: Mapping[str, Any], number: int, id_column: str) -> EntityRecord | Rejection:
    """Returns the entity that a row describes, or why it describes none.

    Args:
        fields: values by column: text, numbers, lists of text or None.
        number: line of the row.
        id_column: column of ids.
    """
    identifier, name = (_text(fields.get(column)) for column in (id_column, "name"))
    reason = None
    if not identifier:
        reason = "no_id"
    elif not name:
        reason = "no_name"
    else:
        try:
            weight = _weight(fields.get("weight"))
            return _record(fields, number, identifier, name, weight)
        except ValueError:
            reason = "bad_weight"
        except TypeError:
            reason = "bad_structure"
    text = ",".join("" if value is None else str(value) for value in fields.values())
    return Rejection(reason, number, text[:REJECT_CHARS] or "(empty)")


def _record(
    fields: Mapping[str, Any], number: int, identifier: str, name: str, weight: float | None
) -> EntityRecord:
    aliases = [alias for alias in dict.fromkeys(_items(fields.get("aliases"))) if alias != name]
    types = next((fields[column] for column in _TYPE_COLUMNS if fields.get(column)), None)
    return EntityRecord(
        id=identifier,
        label=name,
        names=[(name, _LANGUAGE, "label"), *((alias, _LANGUAGE, "alias") for alias in aliases)],
        line=number,
        description=_text(fields.get("description")),
        types=_items(types),
        image=_text(fields.get("image")),
        popularity=weight,
    )


def _text(value: Any) -> str:
    """Returns text and numbers as text; other things have none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()


def _items(value: Any) -> list[str]:
    """Returns the parts of a list, or of text with | between them.

    Raises:
        TypeError: it is neither.
    """
    if value is None:
        return []
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise TypeError(value)
    return [text for text in map(_text, parts) if text]


def _weight(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    weight = float(value)
    # Written so that NaN is refused as well.
    if not 0 <= weight <= MAX_WEIGHT:
        raise ValueError(value)
    return weight
