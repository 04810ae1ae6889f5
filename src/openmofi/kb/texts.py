"""Labels, descriptions and types of entities, memory-mapped: three columns of strings by row.

In: entities in row order. Out: texts/label, texts/description and texts/types; the last has the
labels of an entity's types ("country, island nation"), or a catalogue's own words for them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.arrays.mapped import one_chunk
from openmofi.arrays.strings import open_strings, write_strings
from openmofi.kb.ids import Ids

_NEAREST = 2


class Texts:
    """The texts of a knowledge base's entities."""

    def __init__(self, folder: Path):
        self.label = open_strings(folder / "label")
        self.description = open_strings(folder / "description")
        self.types = open_strings(folder / "types")

    def described(self, rows: np.ndarray) -> pa.Array:
        """Returns "label: description", or only the label if there is no description."""
        at = pa.array(np.asarray(rows, np.int64))
        return _joined(self.label.take(at), ": ", self.description.take(at))

    def of_kind(self, rows: np.ndarray) -> pa.Array:
        """Returns "label (type, type): description" with the two nearest types."""
        at = pa.array(np.asarray(rows, np.int64))
        types = pc.list_slice(pc.split_pattern(self.types.take(at), ", "), 0, _NEAREST)
        nearest = pc.binary_join(types, pa.scalar(", ", pa.large_string()))
        named = _joined(self.label.take(at), " ", _bracketed(nearest))
        return _joined(named, ": ", self.description.take(at))

    def in_full(self, rows: np.ndarray) -> pa.Array:
        """Returns "label: description (types)", without the parts that are missing."""
        types = self.types.take(pa.array(np.asarray(rows, np.int64)))
        return _joined(self.described(rows), " ", _bracketed(types))


def _bracketed(texts: pa.Array) -> pa.Array:
    before, after, nothing = (pa.scalar(text, pa.large_string()) for text in ("(", ")", ""))
    bracketed = pc.binary_join_element_wise(before, texts, after, nothing)
    return pc.if_else(pc.equal(texts, nothing), nothing, bracketed)


def _joined(one: pa.Array, between: str, other: pa.Array) -> pa.Array:
    both = pc.binary_join_element_wise(one, other, pa.scalar(between, pa.large_string()))
    return pc.if_else(pc.equal(other, ""), one, both)


def write_texts(folder: Path, entities: Iterable[pa.Table], ids: Ids) -> None:
    """Writes the texts of a knowledge base.

    Args:
        folder: folder of the knowledge base, which gets texts/.
        entities: tables in row order with label, description and types; read several times.
        ids: ids of the same entities.
    """
    texts = folder / "texts"
    for name in ("label", "description"):
        write_strings(texts / name, (chunk for t in entities for chunk in t[name].chunks))
    labels = open_strings(texts / "label")
    write_strings(
        texts / "types", (_type_labels(table["types"], ids, labels) for table in entities)
    )


def _type_labels(types: pa.ChunkedArray, ids: Ids, labels: pa.LargeStringArray) -> pa.Array:
    lists = one_chunk(types)
    flat = lists.flatten()
    rows = ids.rows(flat)
    known = labels.take(pa.array(rows, mask=rows < 0))
    # An id without an entity tells nothing; a catalogue's types are words.
    words = pc.if_else(pc.match_substring_regex(flat, r"^Q\d+$"), "", flat.cast(pa.large_string()))
    named = pc.coalesce(known, words)
    parents = pc.list_parent_indices(lists).to_numpy()
    kept = pc.not_equal(named, "").to_numpy(zero_copy_only=False)
    kept_names = named.filter(pa.array(kept)).cast(pa.string())
    counts = np.bincount(parents[kept], minlength=len(lists))
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, kept_names), ", ")
