"""Rows of `embed`'s output -> a part of an index; several parts -> one."""

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
"""The host of a URL, behind a user's name and before a port: RFC 3986, section 3.2."""
_EXACT_BELOW = 100_000
_LISTS_FROM = 2_000_000


@dataclass(frozen=True)
class Described:
    """What an embeddings file says of itself."""

    model: str
    kb: str
    """Knowledge base with its entities; "" where unknown."""
    origin: Origin


def describe(rows: pa.Table, kb: Path | str | None) -> Described:
    """Returns what the metadata of an embeddings file says, and where its knowledge base lies."""
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
    """Returns the kind of index that settings ask for."""
    if settings.kind != "auto" and num_rows:
        return settings.kind
    if num_rows < _EXACT_BELOW:
        return "flat"
    return "hnsw" if num_rows < _LISTS_FROM else "ivf"


def prepare_rows(rows: pa.Table, described: Described) -> tuple[pa.Table, pa.Table]:
    """Returns (schema.INDEX_ROWS of an embeddings file, schema.INDEX_ENTITIES of its entities).

    Raises:
        InputError: the knowledge base is not where it was.
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
    """Returns the rows without labels that are null, or that a row has twice."""
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
    """Returns names and types of entities; of those that the knowledge base lacks only the id."""
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
        parts: in the order of their rows.
        kind: of the new part. If the first part is of this kind and keeps all its rows, its graph
            or lists are extended and not rebuilt.
        settings: of a graph that is rebuilt.
        keep: rows that stay, in rising order; None: all.
    """
    origins = list(dict.fromkeys(origin for part in parts for origin in part.origins))
    rows = pa.concat_tables([_with_origins(part, origins) for part in parts])
    entities = _united([part.entities for part in reversed(parts)])
    if keep is None and kind != "flat" and parts[0].kind == kind:
        tail = np.concatenate([part.vectors() for part in parts[1:]])
        add_to(folder, parts[0], tail, rows, entities, origins)
        return
    vectors = np.concatenate([part.vectors() for part in parts])
    if keep is not None:
        vectors, rows = vectors[keep], rows.take(pa.array(keep))
    write_part(folder, vectors, rows, entities, origins, kind=kind, settings=settings)


def _with_origins(part: IndexPart, origins: list[Origin]) -> pa.Table:
    """Returns a part's rows with the numbers that its origins have in a longer list."""
    numbers = np.array([origins.index(origin) for origin in part.origins], np.int32)
    own = pa.array(numbers[part.rows["origin"].to_numpy()])
    return part.rows.set_column(part.rows.schema.get_field_index("origin"), "origin", own)


def _united(tables: list[pa.Table]) -> pa.Table:
    """Returns the entities of several tables, each as the first table has it."""
    table = pa.concat_tables(tables)
    _, first = np.unique(table["id"].to_numpy(), return_index=True)
    return table.take(pa.array(np.sort(first)))
