"""Completion of the names of an index's own entities.

A knowledge base may have millions of entities of which the index shows a few; their names are read
once and kept sorted, together with the rest of each name from every later word on: "french
republic" is found by "fre" and by "rep". A query is three binary searches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from openmofi.kb.text import canonical, canonical_batch
from openmofi.schema import NAMES
from openmofi.serve.library import Library

_COLUMNS = ("key", "raw", "language", "weight")
_SCHEMA = pa.schema([*(NAMES.field(name) for name in _COLUMNS), ("code", pa.int64())])
_STARTS = pa.schema([("text", pa.string()), ("name", pa.int64()), ("later", pa.bool_())])
_AFTER_ALL = "\U0010ffff"
_WHOLE, _BEGINNING, _LATER = 0, 1, 2
"""How well a name fits: it is the typed text, begins with it, or a later word does."""


@dataclass(frozen=True)
class Suggestion:
    """An entity and the name by which it was found."""

    entity: str
    name: str


class EntityNames:
    """The names of the index's entities."""

    def __init__(self, library: Library):
        self.ids = list(library.own)
        """Ids, those with most images first; an entity's position is its code."""
        self._codes = {entity: code for code, entity in enumerate(self.ids)}
        names = _own_names(library)
        if library.kb is not None:
            names = pa.concat_tables([_kb_names(library, self._codes), names])
        names = names.sort_by([("code", "ascending"), ("weight", "descending")])
        self.names = names.combine_chunks()
        """Columns key, raw, language, weight and code; by code, then by descending weight."""
        self._code = self.names["code"].to_numpy()
        self._starts = _WordStarts(self.names["key"].combine_chunks())

    def find(self, typed: str, *, k: int, offset: int = 0) -> list[Suggestion]:
        """Returns entities with a name in which a word begins with the typed text.

        The best fitting names come first, then entities with more images. An empty text finds all.
        """
        if not typed.strip():
            return [Suggestion(e, self._label(e)) for e in self.ids[offset : offset + k]]
        key = canonical(typed)
        if not key:
            return []
        name, fit = self._starts.find(key)
        code = self._code[name]
        order = np.argsort(fit * len(self.ids) + code, kind="stable")
        _, first = np.unique(code[order], return_index=True)
        chosen = name[order[np.sort(first)[offset : offset + k]]]
        raw = self.names["raw"].take(pa.array(chosen)).to_pylist()
        return [Suggestion(self.ids[self._code[n]], r) for n, r in zip(chosen, raw, strict=True)]

    def of(self, entity: str) -> pa.Table:
        """Returns an entity's names by descending weight: key, raw, language, weight, code."""
        code = self._codes[entity]
        begin, end = np.searchsorted(self._code, [code, code + 1])
        return self.names.slice(begin, end - begin)

    def _label(self, entity: str) -> str:
        """Returns the name with the largest weight."""
        return self.of(entity)["raw"][0].as_py()


class _WordStarts:
    """The rest of each key from each of its words on, sorted."""

    def __init__(self, keys: pa.StringArray):
        found = [_STARTS.empty_table()]  # an index without labels has no names
        name = np.arange(len(keys))
        while len(keys):
            columns = {"text": keys, "name": name, "later": [len(found) > 1] * len(name)}
            found.append(pa.table(columns, schema=_STARTS))
            keys = pc.replace_substring_regex(keys, r"^[^ ]+ ?", "")  # without its first word
            left = pc.not_equal(keys, "").to_numpy(zero_copy_only=False)
            keys, name = keys.filter(pa.array(left)), name[left]
        whole = pa.concat_tables(found).sort_by("text").combine_chunks()
        self._texts: pa.StringArray = whole["text"].combine_chunks()
        self._name = whole["name"].to_numpy()
        self._later = whole["later"].to_numpy(zero_copy_only=False)

    def find(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns (names in which a word begins with the key, how well each fits)."""
        begin, after = self._place(bisect_left, key), self._place(bisect_right, key)
        end = self._place(bisect_left, key + _AFTER_ALL)
        fit = np.where(self._later[begin:end], _LATER, _BEGINNING)
        fit[: after - begin][fit[: after - begin] == _BEGINNING] = _WHOLE
        return self._name[begin:end], fit

    def _place(self, bisect: Callable[..., int], text: str) -> int:
        return bisect(range(len(self._texts)), text, key=lambda i: self._texts[i].as_py())


def _own_names(library: Library) -> pa.Table:
    """Returns the ids and labels in the index itself as names of weight 0."""
    ids = list(library.own)
    raw = pa.array([*ids, *(library.label(entity) for entity in ids)], pa.string())
    code = np.tile(np.arange(len(ids)), 2)
    columns = {
        "key": canonical_batch(raw),
        "raw": raw,
        "language": pa.repeat("", len(raw)),
        "weight": pa.repeat(pa.scalar(0.0, pa.float32()), len(raw)),
        "code": code,
    }
    return pa.table(columns, schema=_SCHEMA)


def _kb_names(library: Library, codes: dict[str, int]) -> pa.Table:
    """Reads the names of the index's entities; of the other names only the column entity."""
    assert library.kb is not None
    code_of_row = np.full(len(library.kb) + 1, -1)
    for entity, code in codes.items():
        row = library.kb.row_of(entity)
        code_of_row[-1 if row is None else row] = code
    code_of_row[-1] = -1
    tables = [_SCHEMA.empty_table()]
    with pq.ParquetFile(library.kb.path / "names.parquet") as file:
        for group in range(file.num_row_groups):
            owner = file.read_row_group(group, ["entity"])["entity"].to_numpy()
            mine = np.flatnonzero(code_of_row[owner] >= 0)
            if len(mine):
                table = file.read_row_group(group, list(_COLUMNS)).take(pa.array(mine))
                code = pa.array(code_of_row[owner[mine]])
                tables.append(table.append_column("code", code).cast(_SCHEMA))
    return pa.concat_tables(tables)
