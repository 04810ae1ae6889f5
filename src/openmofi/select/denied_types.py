"""Denied types -> the entities that they rule out, including those of subclasses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase


def denied_entities(kb: KnowledgeBase, types: Sequence[str]) -> np.ndarray:
    """Returns for each entity whether one of its types is denied or a subclass of a denied one."""
    table = kb.entities(["id", "types", "subclass_of"])
    identifiers = table["id"].combine_chunks()
    denied = with_subclasses(types, identifiers, table["subclass_of"].combine_chunks())
    lists = table["types"].combine_chunks()
    hit = pc.is_in(lists.flatten(), value_set=denied).to_numpy(zero_copy_only=False)
    found = np.zeros(len(lists), bool)
    found[pc.list_parent_indices(lists).to_numpy()[hit]] = True
    return found


def with_subclasses(types: Sequence[str], ids: pa.Array, subclass_of: pa.ListArray) -> pa.Array:
    """Returns the types and all their direct and indirect subclasses.

    Args:
        types: ids or, for a catalogue, words.
        ids: the ids of all entities.
        subclass_of: per entity, its direct superclasses.
    """
    children = ids.take(pc.list_parent_indices(subclass_of))
    parents = subclass_of.flatten()
    known = frontier = pa.array(list(types), pa.string())
    while len(frontier):
        found = pc.unique(children.filter(pc.is_in(parents, value_set=frontier)))
        frontier = found.filter(pc.invert(pc.is_in(found, value_set=known)))
        known = pa.concat_arrays([known, frontier])
    return known


def check_types(kb: KnowledgeBase, types: Sequence[str]) -> None:
    """Rejects unknown types, which would silently deny nothing.

    Raises:
        InputError: the knowledge base does not know a type.
    """
    if not types:
        return
    table = kb.entities(["types", "subclass_of"])
    used = [chunk.flatten() for name in table.column_names for chunk in table[name].chunks]
    unused = set(types) - set(pc.unique(pa.chunked_array(used, pa.string())).to_pylist())
    for name in types:
        if name in unused and kb.row_of(name) is None:
            raise InputError(
                f"No entity of {str(kb.path)!r} has the type {name!r}, so --deny-types {name} "
                "would refuse nothing; `openmofi kb show ID` lists the types of an entity."
            )
