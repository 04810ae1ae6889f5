"""Measuring: rows of own_code.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from own.rivals import Finding, ratios
from reading import taking_turns


def average_precision(folder: Path) -> Iterator[Finding]:
    import retrieval_protocols as protocols
    from sklearn.metrics import average_precision_score

    from openmofi.evaluate import gpr1200

    vectors = protocols.gpr_vectors(np.random.default_rng(0), 256, 4.0)
    labels = np.arange(12_000) // 10

    def by_sklearn(queries: int = 300) -> float:
        near = vectors[:queries] @ vectors.T
        pairs = zip(labels[:queries], near, strict=True)
        return float(np.mean([average_precision_score(labels == y, row) for y, row in pairs]))

    seconds = taking_turns(
        {
            "ours": lambda: gpr1200.mean_average_precision(vectors),
            "sort": lambda: protocols.sorted_gpr1200(vectors),
            "sklearn": by_sklearn,
        },
        3,
    )
    off = abs(
        gpr1200.mean_average_precision(vectors)["all"] - protocols.sorted_gpr1200(vectors)["all"]
    )
    ratio = seconds["sklearn"] * 40 / seconds["ours"]
    tied = np.tile(vectors[:1], (12_000, 1))
    by_chance = gpr1200.mean_average_precision(tied)["all"]
    by_sorting = protocols.sorted_gpr1200(tied)["all"]
    note = f"12,000 equal vectors score {by_chance:.4f} with ours, {by_sorting:.4f} by sorting"
    yield Finding("sorting, as the official code", seconds["sort"] / seconds["ours"], note)
    yield Finding(
        "scikit-learn, a 40th of the queries", ratio, f"differs from sorting by {off:.0e}"
    )


def revisited_oxford(folder: Path) -> Iterator[Finding]:
    import retrieval_protocols as protocols

    from openmofi.evaluate import revisited

    gallery, queries, truth = protocols.made_up_oxford(np.random.default_rng(0))
    similarity = queries @ gallery.T
    timed = ratios(
        lambda: revisited.score_similarities(similarity, truth),
        {"r": lambda: protocols.sorted_revisited(similarity, truth)},
    )
    yield Finding("sorting, as the official code", timed["r"], "from similarities; same scores")


def nearest(folder: Path) -> Iterator[Finding]:
    import faiss
    from sklearn.neighbors import NearestNeighbors

    from openmofi.evaluate.metrics import nearest as ours

    faiss.omp_set_num_threads(1)
    vectors = np.random.default_rng(0).standard_normal((22_000, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gallery, queries = vectors[:20_000], vectors[20_000:]

    def by_faiss() -> np.ndarray:
        index = faiss.IndexFlatIP(256)
        index.add(gallery)
        return index.search(queries, 20)[1]

    def by_sklearn() -> np.ndarray:
        found = NearestNeighbors(n_neighbors=20, algorithm="brute").fit(gallery)
        return found.kneighbors(queries, return_distance=False)

    rivals = {"faiss IndexFlatIP": by_faiss, "scikit-learn": by_sklearn}
    timed = ratios(lambda: ours(queries, gallery, 20, same=False), rivals)
    mine = ours(queries, gallery, 20, same=False)[0]
    for name, run in rivals.items():
        note = f"{np.mean(run() == mine):.4f} the same; ours: of equals the first"
        yield Finding(name, timed[name], note)


def probe(folder: Path) -> Iterator[Finding]:
    import sklearn
    import torch
    from sklearn.linear_model import LogisticRegression

    from openmofi.evaluate.probe_solvers import _prior, solve_sklearn, torch_solver

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 5000)
    vectors = rng.standard_normal((10, 512))[labels] + 2 * rng.standard_normal((5000, 512))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    tensors = torch.from_numpy(vectors.astype(np.float64)), torch.from_numpy(labels)

    def dispatched() -> object:
        model = LogisticRegression(
            C=10.0, tol=_prior(vectors, labels, 10.0).tolerance, max_iter=1000
        )
        with sklearn.config_context(array_api_dispatch=True):
            return model.fit(*tensors)

    rivals = {
        "scikit-learn, which a CPU gets": lambda: solve_sklearn(vectors, labels, 10.0),
        "scikit-learn on PyTorch's arrays": dispatched,
    }
    found = ratios(lambda: torch_solver("cpu")(vectors, labels, 10.0), rivals)
    for name, ratio in found.items():
        yield Finding(name, ratio, "ours is for GPUs, timed here on a CPU; same iterations")
