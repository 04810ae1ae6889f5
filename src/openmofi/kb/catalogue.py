"""Reads a user's own catalogue: a CSV or TSV file with one entity a line.

In: a column of ids and `name`; optional `aliases` (separated by |), `description`, `weight`,
`image` and a column of types (`type`, `types`, `coarse` or `category`). Out: an EntityRecord per
usable line, a Rejection for the others.
"""

import csv
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb.lines import TruncatedFile, read_lines
from openmofi.kb.records import REJECT_CHARS, EntityRecord, Records, Rejection

_TYPE_COLUMNS = ("type", "types", "coarse", "category")
_LANGUAGE = "und"  # ISO 639-2: undetermined


def read_catalogue(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every line of a catalogue.

    Reasons: not_utf8, bad_csv (an unclosed quote), too_many_fields (an unquoted delimiter), no_id,
    no_name, bad_weight (not a number, or negative), truncated_file.

    Raises:
        InputError: the header lacks the id or the name column, or the file is empty.
    """
    columns, delimiter = read_header(path)
    id_column = find_id_column(path, columns, settings.id_column)
    _require("name", columns, path)
    refused: list[Rejection] = []
    rows = csv.reader(_decoded(path, refused), delimiter=delimiter)
    next(rows)
    while True:
        try:
            values = next(rows, None)
        except csv.Error as error:
            yield Rejection("bad_csv", rows.line_num, str(error))
            continue
        yield from refused
        refused.clear()
        if values is None:
            return
        if any(values[len(columns) :]):
            text = delimiter.join(values)[:REJECT_CHARS]
            yield Rejection("too_many_fields", rows.line_num, text)
        elif any(values):
            fields = dict(zip(columns, values, strict=False))
            yield _read_row(fields, rows.line_num, id_column)


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


def _require(wanted: str, columns: list[str], path: Path) -> None:
    if wanted not in columns:
        raise _missing(wanted, columns, path, "; rename one of them to it")


def _missing(wanted: str, columns: list[str], path: Path, advice: str) -> InputError:
    close = get_close_matches(wanted, columns, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    found = ", ".join(columns)
    return InputError(f"{path} has no column {wanted!r}{hint}, only: {found}{advice}.")


def _decoded(path: Path, refused: list[Rejection]) -> Iterator[str]:
    """Yields the lines that are UTF-8 and notes the others."""
    number = 0
    try:
        for number, line in read_lines(path):
            try:
                yield line.decode() + "\n"
            except UnicodeDecodeError:
                text = line.decode(errors="replace")[:REJECT_CHARS]
                refused.append(Rejection("not_utf8", number, text))
                # The csv module counts lines; an empty one keeps its count right.
                yield "\n"
    except TruncatedFile as error:
        refused.append(Rejection("truncated_file", number, str(error)))


def _read_row(fields: dict[str, str], number: int, id_column: str) -> EntityRecord | Rejection:
    text = ",".join(fields.values())[:REJECT_CHARS]
    identifier, name = (fields.get(column, "").strip() for column in (id_column, "name"))
    if not identifier:
        return Rejection("no_id", number, text)
    if not name:
        return Rejection("no_name", number, text)
    try:
        weight = _weight(fields.get("weight", ""))
    except ValueError:
        return Rejection("bad_weight", number, text)
    aliases = [alias.strip() for alias in fields.get("aliases", "").split("|")]
    aliases = [alias for alias in dict.fromkeys(aliases) if alias and alias != name]
    types = next((fields[column] for column in _TYPE_COLUMNS if fields.get(column)), "")
    return EntityRecord(
        id=identifier,
        label=name,
        names=[(name, _LANGUAGE, "label"), *((alias, _LANGUAGE, "alias") for alias in aliases)],
        line=number,
        description=fields.get("description", "").strip(),
        types=[part.strip() for part in types.split("|") if part.strip()],
        image=fields.get("image", "").strip(),
        popularity=weight,
    )


def _weight(text: str) -> float | None:
    if not text.strip():
        return None
    weight = float(text)
    # Written so that NaN is refused as well.
    if not 0 <= weight < float("inf"):
        raise ValueError(text)
    return weight
