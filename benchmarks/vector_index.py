"""How right and how fast `search.Index` is, under filters, beside hnswlib and usearch.

    python benchmarks/vector_index.py --rows 200000 --dim 256 --kind hnsw

Vectors lie around centres, two thirds of a vector's length being noise; queries lie around the same
centres and are not in the index. Every answer is compared with the exact one over float32 vectors.
The rivals are `pip install hnswlib usearch`; without them only ours is measured. hnswlib filters by
a function in Python that it calls per vector; usearch's Python package has no filter. All use one
thread per query and the same number of links and breadths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi import schema
from openmofi.config import IndexSettings
from openmofi.search import Index

SHARES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)


def world(rows: int, dim: int, queries: int, centres: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    middle = rng.standard_normal((centres, dim)).astype(np.float32)
    of = rng.integers(0, centres, rows + queries)
    vectors = middle[of]
    for begin in range(0, len(vectors), 100_000):
        part = vectors[begin : begin + 100_000]
        part += 0.9 * rng.standard_normal(part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors[:rows], of[:rows], vectors[rows:], of[rows:]


def write(path: Path, vectors: np.ndarray, of: np.ndarray, first: int = 0) -> Path:
    numbers = range(first, first + len(vectors))
    half = pa.array(vectors.astype(np.float16).ravel())
    columns = {
        "id": [f"{i:09d}" for i in numbers],
        "shard": [f"{i // 1000:06d}.tar" for i in numbers],
        "path": [""] * len(of),
        "offset": numbers,
        "size": [1] * len(of),
        "caption": [f"a caption of image {i}, about as long as they are" for i in numbers],
        "url": [f"https://host{i % 50}.example.org/{i}.jpg" for i in numbers],
        "entities": [[f"Q{c}"] for c in of.tolist()],
        "label_scores": [[0.9]] * len(of),
        "text_area": [None] * len(of),
        "labels_row": [None] * len(of),
        "vector": pa.FixedSizeListArray.from_arrays(half, vectors.shape[1]),
    }
    pq.write_table(pa.table(columns, schema=schema.embeddings(vectors.shape[1])), path)
    return path


def exact(vectors: np.ndarray, queries: np.ndarray, passing: np.ndarray, k: int) -> np.ndarray:
    rows = np.flatnonzero(passing)
    scores = queries @ vectors[rows].T
    k = min(k, len(rows))
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return rows[best]


def recall(truth: np.ndarray, found: list) -> float:
    hits = [
        len(set(t.tolist()) & set(np.asarray(f).tolist()))
        for t, f in zip(truth, found, strict=True)
    ]
    return float(np.mean(hits) / truth.shape[1])


def timed(search, queries) -> tuple[list, float, float]:
    """Returns (answers, median and 95th percentile in milliseconds)."""
    answers, seconds = [], []
    for query in queries:
        begin = time.perf_counter()
        answers.append(search(query))
        seconds.append(1000 * (time.perf_counter() - begin))
    return answers, statistics.median(seconds), float(np.percentile(seconds, 95))


def measure_filters(index, rivals, vectors, of, queries, query_of, k) -> list[dict]:
    rng, table = np.random.default_rng(1), []
    cases = {f"random {share:g}": rng.random(len(vectors)) < share for share in SHARES}
    cases["clusters 0.5"] = of % 2 == 0
    for name, passing in cases.items():
        truth = exact(vectors, queries, passing, k)
        rows, p50, p95 = timed(lambda q, p=passing: index.nearest(q, k=k, passing=p)[0], queries)
        plans = [index.nearest(q, k=k, passing=passing)[2] for q in queries[:20]]
        row = {"filter": name, "rows": int(passing.sum()), "recall": recall(truth, rows)}
        row |= {"p50_ms": p50, "p95_ms": p95, "exact": plans.count("exact") / len(plans)}
        if "hnswlib" in rivals:
            some = queries[:20]  # its filter is a Python function: seconds where few rows pass
            rival = rivals["hnswlib"]
            allowed = passing.tolist()
            found, other, _ = timed(lambda q, a=allowed, r=rival: r(q, k, a), some)
            row |= {"hnswlib_recall": recall(truth[:20], found), "hnswlib_p50_ms": other}
        table.append(row)
        print(json.dumps(row), flush=True)
    return table


def hnswlib_search(vectors: np.ndarray, settings: IndexSettings):
    import hnswlib

    rival = hnswlib.Index("ip", vectors.shape[1])
    rival.init_index(len(vectors), M=settings.hnsw_links, ef_construction=settings.ef_construction)
    rival.add_items(vectors, num_threads=2)
    rival.set_ef(settings.ef_search)
    rival.set_num_threads(1)

    def search(query, k, allowed=None):
        function = None if allowed is None else allowed.__getitem__
        try:
            return rival.knn_query(query, k=k, filter=function, num_threads=1)[0][0]
        except RuntimeError:  # it found fewer than k
            return []

    return search


def usearch_search(vectors: np.ndarray, settings: IndexSettings):
    from usearch.index import Index as Rival

    rival = Rival(
        ndim=vectors.shape[1],
        metric="ip",
        dtype="f16",
        connectivity=settings.hnsw_links,
        expansion_add=settings.ef_construction,
        expansion_search=settings.ef_search,
    )
    rival.add(np.arange(len(vectors)), vectors, threads=2)
    return lambda query, k: rival.search(query, k, threads=1).keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--centres", type=int, default=2000)
    parser.add_argument("--kind", default="auto", choices=["auto", "flat", "hnsw", "ivf"])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="directory for the index; kept")
    parser.add_argument("--rivals", default="hnswlib,usearch")
    arguments = parser.parse_args()
    settings = IndexSettings(kind=arguments.kind)
    vectors, of, queries, query_of = world(
        arguments.rows + 1000, arguments.dim, arguments.queries, arguments.centres
    )
    vectors, extra = vectors[: arguments.rows], (vectors[arguments.rows :], of[arguments.rows :])
    of = of[: arguments.rows]
    result: dict = {"rows": len(vectors), "dim": arguments.dim}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "index"
        source = write(Path(temporary) / "e.parquet", vectors, of)
        begin = time.perf_counter()
        Index.build(source, folder, settings)
        result["build_s"] = time.perf_counter() - begin
        begin = time.perf_counter()
        index = Index.open(folder)
        result["open_ms"] = 1000 * (time.perf_counter() - begin)
        index.nearest(queries[0], k=arguments.k)
        result["open_and_first_answer_ms"] = 1000 * (time.perf_counter() - begin)
        rivals = {}
        for name, make in {"hnswlib": hnswlib_search, "usearch": usearch_search}.items():
            if name in arguments.rivals.split(","):
                begin = time.perf_counter()
                rivals[name] = make(vectors, settings)
                result[f"{name}_build_s"] = time.perf_counter() - begin
        everything = np.ones(len(vectors), bool)
        truth = exact(vectors, queries, everything, arguments.k)
        ours = {"openmofi": lambda q, k: index.nearest(q, k=k)[0]}
        for name, search in {**ours, **rivals}.items():
            timed(lambda q, s=search: s(q, arguments.k), queries[:20])
            found, p50, p95 = timed(lambda q, s=search: s(q, arguments.k), queries)
            result[name] = {"recall": recall(truth, found), "p50_ms": p50, "p95_ms": p95}
        print(json.dumps(result), flush=True)
        result["filters"] = measure_filters(
            index, rivals, vectors, of, queries, query_of, arguments.k
        )
        more = write(Path(temporary) / "more.parquet", *extra, first=arguments.rows)
        begin = time.perf_counter()
        grown = index.add(more)
        result["add_1000_s"] = time.perf_counter() - begin
        found, p50, _ = timed(lambda q: grown.nearest(q, k=1)[0], extra[0][:200])
        hits = [rows[0] - arguments.rows == i for i, rows in enumerate(found)]
        result["added_found"] = float(np.mean(hits))
        result["p50_ms_after_adding"] = p50
        begin = time.perf_counter()
        grown.delete(np.arange(0, arguments.rows, 200))
        result["delete_1000_s"] = time.perf_counter() - begin
    print(json.dumps(result))


if __name__ == "__main__":
    main()
