"""Whole columns of pairs: texts of any Arrow type -> clean captions and a table of schema.PAIRS."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.mapped import one_chunk
from openmofi.arrays.strings import string_buffers
from openmofi.pairs.caption import MAX_CHARS, check_caption, text_of
from openmofi.schema import PAIRS

_BYTES = pa.large_binary()
# First bytes of white space (ASCII up to 0x20, U+0085 and U+00A0, U+1680, U+20xx, U+3000) and of a
# byte order mark.
_MAY_BE_BLANK = np.isin(np.arange(256), [*range(0x21), 0xC2, 0xE1, 0xE2, 0xE3, 0xEF])

Column = pa.Array | pa.ChunkedArray


def raw_texts(column: Column) -> pa.LargeBinaryArray:
    """Returns the texts of a column as bytes, as caption.text_of reads them; null: no text."""
    array = one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_nested(array.type):
        texts = map(text_of, array.to_pylist())
        encoded = [t.encode("utf-8", "surrogatepass") if isinstance(t, str) else t for t in texts]
        return pa.array(encoded, _BYTES)
    try:
        if pa.types.is_string(array.type) or pa.types.is_string_view(array.type):
            array = array.cast(pa.large_string())
        return array.cast(_BYTES)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # numbers and the like
        return pa.nulls(len(array), _BYTES)


def check_captions(raw: pa.LargeBinaryArray) -> tuple[pa.LargeStringArray, pa.LargeStringArray]:
    """Does for a column what `check_caption` does for one caption: (captions, reasons or "")."""
    offsets, data = string_buffers(raw)
    texts = pa.LargeStringArray.from_buffers(
        len(raw), pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)
    )
    lengths = np.diff(offsets)
    doubtful = (lengths == 0) | (lengths > MAX_CHARS)
    filled = np.flatnonzero(lengths)
    doubtful[filled] |= _MAY_BE_BLANK[data[offsets[:-1][filled]]]
    zeros = np.flatnonzero(data == 0)  # as in UTF-16 without a mark
    if len(zeros):
        doubtful[np.searchsorted(offsets, zeros[zeros < offsets[-1]], "right") - 1] = True
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        doubtful[:] = True
    errors = pa.repeat(pa.scalar("", pa.large_string()), len(raw))
    if not doubtful.any():
        return texts, errors
    checked = [check_caption(found) for found in raw.filter(pa.array(doubtful)).to_pylist()]
    return (
        _patched(texts, doubtful, [text for text, _ in checked]),
        _patched(errors, doubtful, [error for _, error in checked]),
    )


def _patched(column: pa.Array, where: np.ndarray, values: list[str]) -> pa.Array:
    return pc.replace_with_mask(column, pa.array(where), pa.array(values, pa.large_string()))


def plain_texts(column: Column | None, rows: int) -> Column:
    """Returns a column as strings, "" where it is null or does not exist."""
    if column is None:
        return repeated("", rows)
    try:
        return pc.fill_null(column.cast(pa.large_string()), "")
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return pa.array([str(value or "") for value in column.to_pylist()], pa.large_string())


def repeated(text: str, rows: int) -> pa.Array:
    """Returns a column with the same text in every row."""
    return pa.repeat(pa.scalar(text, pa.string()), rows)


def prefixed(prefix: str, texts: Column) -> Column:
    """Returns the texts as large strings, each with the prefix."""
    before, between = (pa.scalar(text, pa.large_string()) for text in (prefix, ""))
    return pc.binary_join_element_wise(before, texts, between)


def pairs_table(
    *,
    key: Column,
    shard: str,
    caption: Column,
    error: Column,
    offset: np.ndarray | None = None,
    size: np.ndarray | None = None,
    path: Column | None = None,
    url: Column | None = None,
) -> pa.Table:
    """Returns a table of schema.PAIRS from whole columns."""
    rows = len(key)
    columns = {
        "key": key,
        "shard": repeated(shard, rows),
        "offset": np.full(rows, -1) if offset is None else offset,
        "size": np.zeros(rows, np.int64) if size is None else size,
        "path": repeated("", rows) if path is None else path,
        "caption": caption,
        "url": repeated("", rows) if url is None else url,
        "status": pc.if_else(pc.equal(error, ""), "ok", "error"),
        "error": error,
    }
    return pa.table(columns).cast(PAIRS)
