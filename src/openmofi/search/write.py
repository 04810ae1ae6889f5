"""Rows of `embed`'s output -> the tables of an index part; several parts -> one."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from openmofi.config import IndexSettings
from openmofi.embeddings import count_rows, embedding_batches
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase
from openmofi.pairs.hosts import hosts_or_shards
from openmofi.progress import progress
from openmofi.schema import INDEX_ENTITIES, INDEX_ROWS
from openmofi.search.part import IndexPart, Origin
from openmofi.search.part_writer import PartWriter, write_names
from openmofi.search.structures import write_structure

_MOST_COMPARED = 10**9
"""Numbers, that is rows times width, up to which all vectors are compared for a question: in 0.1 s
(measured: 25 ms for 1,000,000 of 256, one thread)."""


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


def kind_for(settings: IndexSettings, num_rows: int, dim: int) -> str:
    """Returns the kind of index for the settings and a number of rows of some width."""
    if settings.kind != "auto" and num_rows:
        return settings.kind
    return "flat" if num_rows * dim <= _MOST_COMPARED else "ivf"


def write_source(
    folder: Path,
    source: Path | str,
    *,
    kb: Path | str | None,
    check: Callable[[Described, int], None] | None = None,
) -> Described:
    """Writes embeddings as a part whose rows are compared one by one; returns their origin.

    Of several rows with the same image, the last is kept.

    Args:
        folder: created here.
        source: see `openmofi.embeddings`.
        kb: knowledge base of the entities, or None.
        check: is given the origin and the width of the vectors before anything is written.

    Raises:
        InputError: there are no vectors, or some are not finite; or what `check` raises.
    """
    most, batches = count_rows(source), embedding_batches(source)
    begun = next(batches)
    described, dim = describe(begun.rows, kb), begun.vectors.shape[1]
    if check is not None:
        check(described, dim)
    opened, refused = _open_kb(described.kb), Counter()
    ids: set[str] = set()
    lying: list[pa.Array] = []
    with (
        PartWriter(folder, dim=dim, most_rows=most) as writer,
        progress("index", total=most) as bar,
    ):
        for batch in chain([begun], batches):
            if not np.isfinite(batch.vectors).all():
                raise InputError(
                    f"{str(source)!r} holds vectors that are not finite; embed it again."
                )
            rows = _prepared(batch.rows)
            ids.update(rows["entities"].combine_chunks().flatten().unique().to_pylist())
            writer.add(rows, _unit(batch.vectors))
            lying.append(places(rows))
            refused.update(batch.refused)
            bar.advance(len(rows) + sum(batch.refused.values()))
    for reason, count in refused.items():
        print(f"left out {count:,} rows: {reason}", file=sys.stderr)
    write_names(folder, _entities(sorted(ids), opened), [described.origin])
    keep = _last_of_each(pa.chunked_array(lying))
    if len(keep) < writer.num_rows:
        print(f"left out {writer.num_rows - len(keep):,} repeated images", file=sys.stderr)
        whole = folder.rename(folder.with_name(f"{folder.name}-whole"))
        merge_rows(folder, [IndexPart(whole, ef_search=1)], keep=keep)
        shutil.rmtree(whole)
    return described


def _unit(vectors: np.ndarray) -> np.ndarray:
    import faiss

    vectors = np.array(vectors, np.float32, order="C")
    faiss.normalize_L2(vectors)
    return vectors


def places(table: pa.Table) -> pa.Array:
    """Returns where each row's image lies, as a string; null where the row does not say.

    Vectors of other tools may not name a place.
    """
    names = [table[n].cast(pa.string()).fill_null("") for n in ("shard", "path", "offset")]
    named = pc.not_equal(table["path"].fill_null(""), "")
    known = pc.or_(named, pc.greater_equal(table["offset"].fill_null(-1), 0))
    joined = pc.binary_join_element_wise(*names, "\0")
    return pc.if_else(known, joined, None).combine_chunks()


def _prepared(rows: pa.Table) -> pa.Table:
    """Returns schema.INDEX_ROWS of rows of an embeddings file."""
    url = rows["url"].cast(pa.string()).combine_chunks()
    rows = _with_sound_labels(rows)
    columns = {name: rows[name] for name in INDEX_ROWS.names if name in rows.column_names}
    columns["source"] = hosts_or_shards(url, rows["shard"].combine_chunks())
    columns["origin"] = pa.array(np.zeros(len(rows), np.int32))
    return pa.table(columns).select(INDEX_ROWS.names).cast(INDEX_ROWS)


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


def _open_kb(path: str) -> KnowledgeBase | None:
    """Opens the knowledge base at a path, which may be "".

    Raises:
        InputError: it has been moved.
    """
    try:
        return KnowledgeBase.open(path) if path else None
    except InputError as error:
        raise InputError(f"{error} Or pass --kb with its new place.") from None


def _entities(ids: list[str], kb: KnowledgeBase | None) -> pa.Table:
    """Returns the names and types of entities; only the id of one that is not in the kb."""
    table = {
        "id": ids,
        "label": list(ids),
        "description": [""] * len(ids),
        "types": [[]] * len(ids),
    }
    if kb is not None:
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
    kept: Path,
    keep: np.ndarray | None = None,
) -> None:
    """Writes several parts as one.

    Args:
        folder: the part to write.
        parts: the old parts in the order of their rows.
        kind: kind of the new part. If the first part is of this kind and keeps all its rows, its
            graph or lists are extended instead of rebuilt.
        settings: parameters of a graph that is rebuilt.
        kept: folder in which an unfinished graph is kept.
        keep: rows to keep, in ascending order; None: all.
    """
    merge_rows(folder, parts, keep=keep)
    grows = keep is None and parts[0].kind == kind
    first = parts[0] if grows else None
    write_structure(folder, kind=kind, settings=settings, kept=kept, first=first)


def merge_rows(folder: Path, parts: list[IndexPart], *, keep: np.ndarray | None = None) -> None:
    """Writes the rows of several parts as one, without a graph or lists; see `merge_parts`."""
    origins = list(dict.fromkeys(origin for part in parts for origin in part.origins))
    count = sum(map(len, parts))
    kept = np.ones(count, bool)
    if keep is not None:
        kept = np.zeros(count, bool)
        kept[keep] = True
    begin, most, dim = 0, int(kept.sum()), parts[0].stored.d
    with (
        PartWriter(folder, dim=dim, most_rows=most) as writer,
        progress("index", total=most) as bar,
    ):
        for part in parts:  # whose rows number the part's own origins
            number = np.array([origins.index(origin) for origin in part.origins], np.int32)
            for first, rows in part.row_groups():
                own = np.flatnonzero(kept[begin + first : begin + first + len(rows)])
                rows = rows.take(pa.array(own))
                numbers = pa.array(number[rows["origin"].to_numpy()])
                place = rows.schema.get_field_index("origin")
                writer.add(rows.set_column(place, "origin", numbers), part.vectors(first + own))
                bar.advance(len(own))
            begin += len(part)
    known = pa.concat_tables([part.entities for part in reversed(parts)])  # the newest comes first
    _, newest = np.unique(known["id"].to_numpy(), return_index=True)
    write_names(folder, known.take(pa.array(np.sort(newest))), origins)


def _last_of_each(places: pa.ChunkedArray) -> np.ndarray:
    """Returns the last row of each place, and the rows without one, in ascending order."""
    numbers = places.dictionary_encode().combine_chunks().indices
    row = np.arange(len(numbers))
    numbers = numbers.to_numpy(zero_copy_only=False)
    if numbers.dtype.kind == "f":  # null where there is no place
        numbers = np.where(np.isnan(numbers), -1 - row, numbers).astype(np.int64)
    last = np.full(int(numbers.max()) + 1, -1) if (numbers >= 0).any() else np.zeros(0, np.int64)
    placed = numbers >= 0
    last[numbers[placed]] = row[placed]  # of equal indexes, the last one counts
    return np.sort(np.r_[last, row[~placed]])
