"""Reads catalogues whose values have types: JSON lines and Parquet.

In: objects or rows with the columns of `catalogue.py`; aliases and types may be lists. Out: an
EntityRecord per usable row, a Rejection for the others.
"""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.files.lines import TruncatedFile, read_lines
from openmofi.kb.read.catalogue import find_id_column, record_of, require_column
from openmofi.kb.read.records import EntityRecord, Records, Rejection, beginning

_BATCH_ROWS = 1 << 13
_JSON = msgspec.json.Decoder()


def read_json_lines(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every line of a catalogue in JSON lines.

    Reasons: not_utf8, bad_json, bad_structure (no object, or a list where text belongs), no_id,
    no_name, bad_weight, truncated_file, trailing_garbage.

    Raises:
        InputError: the first object has no id or no name, or the file is empty.
    """
    id_column = find_id_column(path, json_columns(path), settings.id_column)
    number = 0
    try:
        for number, line in read_lines(path):
            if line.strip():
                yield _read_line(line, number, id_column)
    except TruncatedFile as error:
        yield Rejection(error.damage.reason, number + 1, error.damage.message)


def _read_line(line: bytes, number: int, id_column: str) -> EntityRecord | Rejection:
    fields = _object(line)
    if isinstance(fields, str):
        return Rejection(fields, number, beginning(line))
    return record_of(fields, number, id_column)


def _object(line: bytes) -> dict[str, Any] | str:
    """Returns the object of a line, or the reason why there is none."""
    try:
        fields = _JSON.decode(line)
    except (msgspec.DecodeError, RecursionError):
        return "bad_json"
    except UnicodeDecodeError:
        return "not_utf8"
    return fields if isinstance(fields, dict) else "bad_structure"


def json_columns(path: Path) -> list[str]:
    """Returns the names of the values of the first object of a file of JSON lines.

    Raises:
        InputError: it has none, or no name.
    """
    try:
        found = (_object(line) for _, line in read_lines(path) if line.strip())
        first = next((fields for fields in found if isinstance(fields, dict)), None)
    except TruncatedFile as error:
        raise InputError(f"{path} is damaged ({error}); expected a complete file.") from None
    if first is None:
        raise InputError(
            f"{path} has no JSON object, but a catalogue in JSON lines has one a line, such as "
            '{"id": "1", "name": "Oat Milk", "aliases": ["oat drink"]}.'
        )
    columns = list(first)
    require_column("name", columns, path)
    return columns


def read_parquet(path: Path, settings: KBSettings) -> Records:
    """Yields an EntityRecord or a Rejection for every row of a catalogue in Parquet.

    Reasons: bad_structure (a list where text belongs), no_id, no_name, bad_weight, truncated_file.

    Raises:
        InputError: it is no Parquet file, or lacks the id or the name column.
    """
    id_column = find_id_column(path, parquet_columns(path), settings.id_column)
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield record_of(fields, number, id_column)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Rejection("truncated_file", number + 1, str(error) or "the file breaks off")


def parquet_columns(path: Path) -> list[str]:
    """Returns the column names of a Parquet file.

    Raises:
        InputError: it is none, or has no names.
    """
    try:
        columns = pq.read_schema(path).names
    except pa.ArrowException as error:
        reason = str(error).strip().rstrip(".")
        raise InputError(
            f"{path} is no Parquet file ({reason}); expected a complete one."
        ) from None
    require_column("name", columns, path)
    return columns
