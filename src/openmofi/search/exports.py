"""Exports an index's vectors, labels and captions to Parquet, LanceDB or Qdrant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.errors import InputError
from openmofi.files.folders import local_path, replace_file
from openmofi.progress import track
from openmofi.search.index import Index

_BATCH = 1000
_COLUMNS = (
    *("id", "shard", "path", "offset", "size", "caption", "url", "source", "entities"),
    "label_scores",
)
Target = Literal["parquet", "lance", "qdrant"]


def export_index(index: Index, out: str, *, to: Target, name: str = "openmofi") -> int:
    """Writes all rows that are not deleted; returns their number.

    Args:
        index: the index to export.
        out: for parquet a file, for lance a directory, for qdrant a directory or the URL of a
            server (http://…).
        to: the format.
        name: name of the table or collection, which must not exist yet.

    Raises:
        InputError: the output exists, the package for the format is missing, the server does not
            answer, or there is nothing to export.
    """
    if not len(index):
        raise InputError(f"The index {str(index.folder)!r} holds no images.")
    write = {"parquet": _to_parquet, "lance": _to_lance, "qdrant": _to_qdrant}[to]
    write(index, out, name)
    return len(index)


def _batches(index: Index) -> Iterator[pa.Table]:
    """Yields rows with the names of their labels and their vectors, float32."""
    live = index.live
    names = {entity["id"]: entity["label"] for entity in index.entities.to_pylist()}
    for begin, read in track(_read_batches(index), "export", unit="batches"):
        rows = begin + np.flatnonzero(live[begin : begin + len(read)])
        if not len(rows):
            continue
        table = read.select(_COLUMNS).take(pa.array(rows - begin))
        vectors = index.vectors(rows)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        labels = [[names[e] for e in entities or ()] for entities in table["entities"].to_pylist()]
        yield (
            table.append_column("row", pa.array(rows))
            .append_column("labels", pa.array(labels, pa.list_(pa.string())))
            .append_column("vector", flat)
        )


def _read_batches(index: Index) -> Iterator[tuple[int, pa.Table]]:
    """Yields (first row, metadata of the rows from there)."""
    for first, part in index.begins():
        for begin, group in part.row_groups():
            for start in range(0, len(group), _BATCH):
                yield first + begin + start, group.slice(start, _BATCH)


def _to_parquet(index: Index, out: str, name: str) -> None:
    path = local_path(out)
    if path.exists():
        raise InputError(f"{out!r} exists; give --out a new file, or delete it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The metadata that `openmofi index` reads. The images' root is only given if there is a single
    # one: a row does not say to which of several it belongs.
    about = {"openmofi.model": index.meta["model"]}
    origins = {origin for part in index.parts for origin in part.origins}
    if len(origins) == 1:
        [origin] = origins
        about |= {"openmofi.root": origin.root, "openmofi.selection": origin.selection}
    tables = _batches(index)
    first = next(tables, None)
    if first is None:
        return
    schema = first.schema.with_metadata(about)
    with replace_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table.replace_schema_metadata(about))


def _to_lance(index: Index, out: str, name: str) -> None:
    try:
        import lancedb
    except ImportError:
        raise InputError(
            "LanceDB is missing; install it with pip install 'openmofi[lance]'."
        ) from None
    batches = _batches(index)
    try:
        table = lancedb.connect(out).create_table(name, next(batches))
    except ValueError as error:
        if "already exists" not in str(error):
            raise
        raise InputError(f"{out!r} has a table {name!r} already; choose another --name.") from None
    for batch in batches:
        table.add(batch)


def _to_qdrant(index: Index, out: str, name: str) -> None:
    try:
        from qdrant_client import QdrantClient, models
    except ImportError:
        raise InputError(
            "The client of Qdrant is missing; install it with pip install 'openmofi[qdrant]'."
        ) from None
    from qdrant_client.http.exceptions import ResponseHandlingException

    remote = out.startswith(("http://", "https://"))
    client = QdrantClient(url=out, check_compatibility=False) if remote else QdrantClient(path=out)
    try:
        try:
            exists = client.collection_exists(name)
        except ResponseHandlingException as error:
            raise InputError(f"Qdrant at {out!r} does not answer ({error}).") from None
        if exists:
            raise InputError(f"{out!r} has a collection {name!r} already; choose another --name.")
        params = models.VectorParams(size=index.meta["dim"], distance=models.Distance.COSINE)
        client.create_collection(name, vectors_config=params)
        for batch in _batches(index):
            points = []
            for row in batch.to_pylist():
                number, vector = row.pop("row"), row.pop("vector")
                points.append(models.PointStruct(id=number, vector=vector, payload=row))
            client.upsert(name, points)
        if remote:  # collections in a directory have no payload indexes
            for field in ("entities", "source"):
                client.create_payload_index(name, field, models.PayloadSchemaType.KEYWORD)
    finally:
        client.close()
