"""Rows of `embed`'s output -> the tables of an index part; several parts -> one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.config import IndexSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.schema import INDEX_ENTITIES, INDEX_ROWS
from openmofi.search.part import IndexPart, Origin, add_to, write_part

__all__ = ["Described", "describe", "kind_for", "merge_parts", "prepare_rows", "write_part"]

_HOST = r"^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#]*@)?(?P<host>\[[^\]/?#]*\]|[^/?#:\[\]]+)"
"""The host of a URL, after a user name and before a port: RFC 3986, section 3.2."""
_EXACT_BELOW = 100_000
_LISTS_FROM = 2_000_000


@dataclass(frozen=True)
class Described:
    """What an embeddings file says about its origin."""

    model: str
    kb: str
    """Knowledge base of its entities; "" if unknown."""
    origin: Origin


def describe(rows: pa.Table, kb: Path | str | None) -> Described:
    """Returns the origin stated in an embeddings file's metadata, with its knowledge base."""
    stored = {k.decode(): v.decode() for k, v in (rows.schema.metadata or {}).items()}
    selection = stored.get("openmofi.selection", "")
    if kb is None and selection and (Path(selection) / "card.json").is_file():
        kb = json.loads((Path(selection) / "card.json").read_text()).get("kb")
    return Described(
        stored.get("openmofi.model", ""),
        str(Path(kb).resolve()) if kb else "",
        Origin(stored.get("openmofi.root", ""), selection),
    )


def kind_for(settings: IndexSettings, num_rows: int) -> str:
    """Returns the kind of index for the settings and a number of rows."""
    if settings.kind != "auto" and num_rows:
        return settings.kind
    if num_rows < _EXACT_BELOW:
        return "flat"
    return "hnsw" if num_rows < _LISTS_FROM else "ivf"


def prepare_rows(rows: pa.Table, described: Described) -> tuple[pa.Table, pa.Table]:
    """Returns (schema.INDEX_ROWS of an embeddings file, schema.INDEX_ENTITIES of its entities).

    Raises:
        InputError: the knowledge base has been moved.
    """
    url = rows["url"].cast(pa.string()).combine_chunks()
    host = pc.utf8_lower(pc.struct_field(pc.extract_regex(url, _HOST), "host"))
    rows = _with_sound_labels(rows)
    columns = {name: rows[name] for name in INDEX_ROWS.names if name in rows.column_names}
    columns["source"] = pc.coalesce(host, rows["shard"].combine_chunks())
    columns["origin"] = pa.array(np.zeros(len(rows), np.int32))
    ids = sorted(set(rows["entities"].combine_chunks().flatten().to_pylist()))
    return pa.table(columns).select(INDEX_ROWS.names).cast(INDEX_ROWS), _entities(ids, described.kb)


def _with_sound_labels(rows: pa.Table) -> pa.Table:
    """Returns the rows without null or repeated labels."""
    entities = rows["entities"].combine_chunks()
    codes = entities.flatten().dictionary_encode().indices
    row = pc.list_parent_indices(entities).to_numpy()
    pairs = row * (len(row) + 1) + codes.fill_null(0).to_numpy()
    if not codes.null_count and len(np.unique(pairs)) == len(pairs):
        return rows
    sound = [list(dict.fromkeys(filter(None, names or ()))) for names in entities.to_pylist()]
    column = pa.array(sound, pa.list_(pa.string()))
    return rows.set_column(rows.schema.get_field_index("entities"), "entities", column)


def _entities(ids: list[str], kb_path: str) -> pa.Table:
    """Returns the names and types of entities; only the id of one that is not in the kb."""
    table = {
        "id": ids,
        "label": list(ids),
        "description": [""] * len(ids),
        "types": [[]] * len(ids),
    }
    if kb_path:
        try:
            kb = KnowledgeBase.open(kb_path)
        except InputError as error:
            raise InputError(f"{error} Or pass --kb with its new place.") from None
        types = kb.entities(["types"])["types"]
        for i, row in enumerate(map(kb.row_of, ids)):
            if row is not None:
                table["label"][i] = kb.texts.label[row].as_py() or ids[i]
                table["description"][i] = kb.texts.description[row].as_py()
                table["types"][i] = types[row].as_py() or []
    return pa.table(table, schema=INDEX_ENTITIES)


def merge_parts(
    folder: Path,
    parts: list[IndexPart],
    *,
    kind: str,
    settings: IndexSettings,
    keep: np.ndarray | None = None,
) -> None:
    """Writes several parts as one.

    Args:
        folder: the part to write.
        parts: the old parts in the order of their rows.
        kind: kind of the new part. If the first part is of this kind and keeps all its rows, its
            graph or lists are extended instead of rebuilt.
        settings: parameters of a graph that is rebuilt.
        keep: rows to keep, in ascending order; None: all.
    """
    origins = list(dict.fromkeys(origin for part in parts for origin in part.origins))
    tables = []
    for part in parts:  # whose rows number the part's own origins
        number = np.array([origins.index(origin) for origin in part.origins], np.int32)
        own_rows = part.read_rows()
        own = pa.array(number[own_rows["origin"].to_numpy()])
        place = own_rows.schema.get_field_index("origin")
        tables.append(own_rows.set_column(place, "origin", own))
    rows = pa.concat_tables(tables)
    known = pa.concat_tables([part.entities for part in reversed(parts)])  # the newest comes first
    _, first = np.unique(known["id"].to_numpy(), return_index=True)
    entities = known.take(pa.array(np.sort(first)))
    if keep is None and kind != "flat" and parts[0].kind == kind:
        tail = np.concatenate([part.vectors() for part in parts[1:]])
        add_to(folder, parts[0], tail, rows, entities, origins)
        return
    vectors = np.concatenate([part.vectors() for part in parts])
    if keep is not None:
        vectors, rows = vectors[keep], rows.take(pa.array(keep))
    write_part(folder, vectors, rows, entities, origins, kind=kind, settings=settings)
