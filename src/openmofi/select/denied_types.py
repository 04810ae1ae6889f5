"""Types that are not wanted -> which entities they rule out, subclasses included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase


def denied_entities(kb: KnowledgeBase, types: Sequence[str], ids: pa.Array) -> np.ndarray:
    """Returns for each id whether one of its types is denied, or is a subclass of a denied one."""
    table = kb.entities(["id", "types", "subclass_of"])
    identifiers = table["id"].combine_chunks()
    denied = with_subclasses(types, identifiers, table["subclass_of"].combine_chunks())
    lists = table["types"].combine_chunks()
    hit = pc.is_in(lists.flatten(), value_set=denied).to_numpy(zero_copy_only=False)
    entities = identifiers.take(pc.unique(pc.list_parent_indices(lists).filter(pa.array(hit))))
    return pc.is_in(ids.cast(pa.string()), value_set=entities).to_numpy(zero_copy_only=False)


def with_subclasses(types: Sequence[str], ids: pa.Array, subclass_of: pa.ListArray) -> pa.Array:
    """Returns the types and everything that is a subclass of them, over any number of steps.

    Args:
        types: ids or, of a catalogue, words.
        ids: of all entities.
        subclass_of: of each entity, what it is directly a subclass of.
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
    """Refuses types that are nobody's: they would deny nothing, unnoticed.

    Raises:
        InputError: the knowledge base knows nothing of a type.
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
