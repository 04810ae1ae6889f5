"""A vector index on disk: embeddings.parquet -> index/{faiss.index, rows.parquet, meta.json}.

Exact below 100,000 vectors, HNSW above. Every entity keeps a posting list, so a search for one
entity's images is exact whatever the index: filtering inside HNSW finds almost nothing when few
rows pass.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float

from openmofi.config import IndexSettings
from openmofi.embed import read_vectors
from openmofi.errors import InputError
from openmofi.folders import check_replaceable, new_folder

_EXACT_BELOW = 100_000


@dataclass(frozen=True)
class Hit:
    """A row that was found."""

    row: int
    id: str
    score: float
    """Cosine; for a search by entity alone, cosine with the entity's mean vector."""
    path: str
    shard: str
    caption: str
    entities: tuple[str, ...]


class Index:
    """Vectors, what is known of each, and which rows show which entity."""

    def __init__(self, folder: Path, faiss_index, rows: pa.Table, meta: dict):
        self.folder, self.rows, self.meta = folder, rows, meta
        self._faiss = faiss_index
        self._postings: dict[str, np.ndarray] | None = None

    @staticmethod
    def build(source: Path | str, out: Path | str, settings: IndexSettings | None = None) -> Index:
        """Builds an index from the output of `embed`; an old one is replaced at the end.

        Raises:
            InputError: the source is not such an output, or holds no row.
        """
        import faiss

        settings, out = settings or IndexSettings(), Path(out)
        check_replaceable(out, _is_index, "an index")
        rows, vectors = read_vectors(source)
        vectors = np.ascontiguousarray(vectors)
        faiss.normalize_L2(vectors)
        kind = settings.kind
        if kind == "auto":
            kind = "flat" if len(rows) < _EXACT_BELOW else "hnsw"
        index = _empty_index(kind, vectors.shape[1], settings)
        index.add(vectors)
        stored = (rows.schema.metadata or {}).items()
        meta = {
            k.decode().removeprefix("openmofi."): v.decode()
            for k, v in stored
            if k.startswith(b"openmofi.")
        }
        meta |= {"kind": kind, "rows": len(rows), "dim": vectors.shape[1]}
        _save(out, index, rows, meta)
        return Index.open(out)

    @staticmethod
    def open(folder: Path | str) -> Index:
        """Opens an index.

        Raises:
            InputError: it is not one.
        """
        import faiss

        folder = Path(folder)
        if not _is_index(folder):
            raise InputError(f"{str(folder)!r} is no index; make one with `openmofi index`.")
        try:
            meta = json.loads((folder / "meta.json").read_text())
            index = faiss.read_index(str(folder / "faiss.index"))
            return Index(folder, index, pq.read_table(folder / "rows.parquet"), meta)
        except (OSError, ValueError, RuntimeError):  # faiss tells of damage by RuntimeError
            raise InputError(
                f"The index {str(folder)!r} is damaged; make it again with `openmofi index`."
            ) from None

    def __len__(self) -> int:
        return len(self.rows)

    def search(
        self, vector: Float[np.ndarray, " dim"], *, k: int = 10, entity: str | None = None
    ) -> list[Hit]:
        """Returns the k rows nearest to a vector, best first.

        Args:
            vector: of the index's width; normalised here.
            k: how many.
            entity: only rows labelled with this id.
        """
        vector = np.asarray(vector, dtype=np.float32)
        vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if entity is not None:
            rows = self.rows_of(entity)
            scores = self.vectors(rows) @ vector
            order = np.argsort(-scores, kind="stable")[:k]
            return self._hits(rows[order], scores[order])
        if k < 1:
            return []
        scores, rows = self._faiss.search(vector[None], min(k, len(self)))
        found = rows[0] >= 0
        return self._hits(rows[0][found], scores[0][found])

    def search_entity(self, entity: str, *, k: int = 10) -> list[Hit]:
        """Returns the most typical images of an entity: nearest to the mean of all its images."""
        rows = self.rows_of(entity)
        if not len(rows):
            return []
        return self.search(self.vectors(rows).mean(0), k=k, entity=entity)

    def rows_of(self, entity: str) -> np.ndarray:
        """Returns the rows labelled with an entity."""
        if self._postings is None:
            self._postings = _postings(self.rows["entities"])
        return self._postings.get(entity, np.zeros(0, dtype=np.int64))

    def vectors(self, rows: np.ndarray) -> Float[np.ndarray, "n dim"]:
        """Returns the stored vectors of rows."""
        if not len(rows):
            return np.zeros((0, self.meta["dim"]), dtype=np.float32)
        return self._faiss.reconstruct_batch(np.asarray(rows, dtype=np.int64))

    def place(self, row: int) -> dict:
        """Returns where a row's picture lies, for `pairs.ImageReader`."""
        return {n: self.rows[n][row].as_py() for n in ("shard", "offset", "size", "path")}

    def _hits(self, rows: np.ndarray, scores: np.ndarray) -> list[Hit]:
        taken = self.rows.take(pa.array(rows, pa.int64())).to_pylist()
        return [
            Hit(
                row=int(row),
                id=data["id"],
                score=float(score),
                path=data["path"],
                shard=data["shard"],
                caption=data["caption"],
                entities=tuple(data["entities"] or ()),
            )
            for row, score, data in zip(rows, scores, taken, strict=True)
        ]


def _empty_index(kind: str, dim: int, settings: IndexSettings):
    import faiss

    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    index = faiss.IndexHNSWFlat(dim, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = settings.ef_construction
    index.hnsw.efSearch = settings.ef_search
    return index


def _is_index(folder: Path) -> bool:
    return (folder / "meta.json").is_file() and (folder / "faiss.index").is_file()


def _save(out: Path, index, rows: pa.Table, meta: dict) -> None:
    import faiss

    with new_folder(out) as partial:
        faiss.write_index(index, str(partial / "faiss.index"))
        pq.write_table(rows, partial / "rows.parquet")
        (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


def _postings(entities: pa.ChunkedArray) -> dict[str, np.ndarray]:
    column = entities.combine_chunks()
    rows = pc.list_parent_indices(column).to_numpy()
    codes = column.flatten().dictionary_encode()
    number = codes.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    bounds = np.searchsorted(number[order], np.arange(len(codes.dictionary) + 1))
    return {
        entity: rows[order[bounds[i] : bounds[i + 1]]].astype(np.int64)
        for i, entity in enumerate(codes.dictionary.to_pylist())
    }
