"""Reads a user's own catalogue with one entity a row: CSV, TSV, JSON lines or Parquet.

In: a column of ids and `name`; optional `aliases` (a list, or text separated by |),
`description`, `weight`, `image` and a column of types (`type`, `types`, `coarse` or `category`).
Out: an EntityRecord per usable row, a Refused for the others.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files.lines import content_suffix
from openmofi.files.tables import JSON_LINES, SHOWN_CHARS, Row, read_header, read_rows
from openmofi.kb.read.records import EntityRecord, Records
from openmofi.refused import Refused

CATALOGUE_SUFFIXES = (".csv", ".tsv", JSON_LINES, ".parquet")
_BATCH_ROWS = 1 << 13
_TYPE_COLUMNS = ("type", "types", "coarse", "category")
_LANGUAGE = "und"  # ISO 639-2: undetermined
MAX_WEIGHT = 1e30
"""Priors are powers of weights and must stay finite."""


def read_catalogue(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Refused for every row of a catalogue.

    Reasons: those of `openmofi.files.tables.Row`; bad_structure (also a list where text belongs),
    no_id, no_name, bad_weight (not a number, negative or huge), truncated_file.

    Raises:
        InputError: the id or name column is missing, or the file is empty or of another kind.
    """
    id_column = find_id_column(path, column_names(path), settings.id_column)
    rows = _parquet_rows(path) if path.suffix == ".parquet" else read_rows(path)
    for row in rows:
        if row.refused:
            yield row.refused
        elif any(row.fields.values()):
            yield record_of(row.fields, row.line, id_column)


def column_names(path: Path) -> list[str]:
    """Returns the columns of a catalogue; for JSON lines, those of the first object.

    Raises:
        InputError: there is no column of names, or the file is damaged, empty or of another kind.
    """
    if path.suffix == ".parquet":
        try:
            columns = pq.read_schema(path).names
        except pa.ArrowException as error:
            reason = str(error).strip().rstrip(".")
            raise InputError(
                f"{path} is not a Parquet file ({reason}); expected a complete one."
            ) from None
    elif content_suffix(path) == JSON_LINES:
        columns = _json_columns(path)
    else:
        columns, _ = read_header(path)
        if not any(columns):
            raise InputError(
                f"{path} is empty, but a catalogue starts with a line of column names."
            )
    if "name" not in columns:
        raise _missing("name", columns, path, "; rename one of them to it")
    return columns


def _json_columns(path: Path) -> list[str]:
    damage = ""
    for row in read_rows(path):
        if not row.refused:
            return list(row.fields)
        is_damage = row.refused.reason in ("truncated_file", "trailing_garbage")
        damage = row.refused.text if is_damage else ""
    if damage:
        raise InputError(f"{path} is damaged ({damage}); expected a complete file.")
    raise InputError(
        f"{path} has no JSON object, but a catalogue in JSON lines has one a line, such as "
        '{"id": "1", "name": "Oat Milk", "aliases": ["oat drink"]}.'
    )


def _parquet_rows(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, fields)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = str(error) or "the file breaks off"
        yield Row(number + 1, {}, Refused("truncated_file", number + 1, message))


def find_id_column(path: Path, columns: list[str], wanted: str) -> str:
    """Returns the column of ids: the wanted one, or the only one that ends in _id.

    Raises:
        InputError: there is no such column.
    """
    if wanted in columns:
        return wanted
    candidates = [column for column in columns if column.endswith("_id")]
    if wanted == KBSettings.id_column and len(candidates) == 1:
        return candidates[0]
    raise _missing(wanted, columns, path, "; name the column of ids with --id-column")


def _missing(wanted: str, columns: list[str], path: Path, advice: str) -> InputError:
    close = get_close_matches(wanted, columns, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    found = ", ".join(columns)
    return InputError(f"{path} has no column {wanted!r}{hint}, only: {found}{advice}.")


def record_of(fields: Mapping[str, Any], number: int, id_column: str) -> EntityRecord | Refused:
    """Returns the entity that a row describes, or a Refused.

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
            aliases = [a for a in dict.fromkeys(_items(fields.get("aliases"))) if a != name]
            types = next((fields[column] for column in _TYPE_COLUMNS if fields.get(column)), None)
            return EntityRecord(
                id=identifier,
                label=name,
                names=[(name, _LANGUAGE, "label"), *((a, _LANGUAGE, "alias") for a in aliases)],
                line=number,
                description=_text(fields.get("description")),
                types=_items(types),
                image=_text(fields.get("image")),
                popularity=weight,
            )
        except ValueError:
            reason = "bad_weight"
        except TypeError:
            reason = "bad_structure"
    text = ",".join("" if value is None else str(value) for value in fields.values())
    return Refused(reason, number, text[:SHOWN_CHARS] or "(empty)")


def _text(value: Any) -> str:
    """Returns text and numbers as text, other values as an empty text."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).replace("\r\n", "\n").strip()


def _items(value: Any) -> list[str]:
    """Returns the parts of a list, or of text separated by |.

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
    """Returns a weight, or None for a blank one.

    Raises:
        ValueError: it is not a number from 0 to MAX_WEIGHT.
        TypeError: it is neither text nor a number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    weight = float(value)
    if not 0 <= weight <= MAX_WEIGHT:  # also true for NaN
        raise ValueError(value)
    return weight
