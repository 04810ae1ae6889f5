"""GPR1200 and ROxford scored by counting ranks, against sorting everything, in one process.

    OMP_NUM_THREADS=1 python benchmarks/retrieval_protocols.py --rounds 5

GPR1200: 12,000 random and clustered embeddings; its rival argsorts every row, as the official
evaluator does, in blocks. ROxford: 5,000 images, 70 queries and 200 images a query that the truth
speaks of; its rival argsorts all and looks each query's images up in the ranking, as the official
evaluator does. GPR1200 counts both ways' products of matrices; ROxford begins at the similarities,
5,000 x 70, and `revisited_with_product` at vectors of 2,048 numbers, where the product, the same
for both, is most of the time. Prints JSON: CPU seconds, medians of alternating rounds; the largest
difference of a score; the peak of memory above the input.
"""

import argparse
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from openmofi.evaluate import gpr1200, revisited
from openmofi.evaluate.ground_truth import GroundTruth, QueryTruth

_BLOCK = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=768, help="of GPR1200's embeddings")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    result = {}
    for name, spread in (("gpr1200_random", None), ("gpr1200_clustered", 4.0)):
        vectors = gpr_vectors(rng, options.width, spread)
        ours = lambda v=vectors: gpr1200.mean_average_precision(v)  # noqa: E731
        rival = lambda v=vectors: sorted_gpr1200(v)  # noqa: E731
        result[name] = compare(ours, rival, options.rounds)
    gallery, queries, truth = made_up_oxford(rng)
    similarity = queries @ gallery.T
    ours = lambda: revisited.score_similarities(similarity, truth)  # noqa: E731
    rival = lambda: sorted_revisited(similarity, truth)  # noqa: E731
    result["revisited"] = compare(ours, rival, 4 * options.rounds)
    ours = lambda: revisited.mean_average_precision(gallery, queries, truth)  # noqa: E731
    rival = lambda: sorted_revisited(queries @ gallery.T, truth)  # noqa: E731
    result["revisited_with_product"] = compare(ours, rival, 4 * options.rounds)
    print(json.dumps(result, indent=2))


def compare(ours: Callable, rival: Callable, rounds: int) -> dict:
    """Runs both in turn, then each once more to see its memory."""
    scores = ours(), rival()  # the first call compiles
    seconds = {"openmofi": [], "sorting": []}
    for _ in range(rounds):
        for name, run in (("openmofi", ours), ("sorting", rival)):
            seconds[name].append(cpu_seconds(run))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "cpu_seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio": round(medians["sorting"] / medians["openmofi"], 2),
        "largest_difference": max(abs(scores[0][key] - scores[1][key]) for key in scores[1]),
        "peak_megabytes": {"openmofi": peak(ours), "sorting": peak(rival)},
    }


def cpu_seconds(run: Callable) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def peak(run: Callable) -> float:
    tracemalloc.start()
    run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(most / 1e6, 1)


def gpr_vectors(rng: np.random.Generator, width: int, spread: float | None) -> np.ndarray:
    vectors = rng.standard_normal((12_000, width), dtype=np.float32)
    if spread is not None:
        centres = rng.standard_normal((1200, width), dtype=np.float32)
        vectors = np.repeat(centres, 10, axis=0) + spread * vectors
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def sorted_gpr1200(vectors: np.ndarray) -> dict[str, float]:
    classes = np.arange(12_000) // 10
    precisions = []
    for start in range(0, 12_000, _BLOCK):
        block = slice(start, start + _BLOCK)
        order = np.argsort(vectors[block] @ vectors.T, axis=1)[:, ::-1]
        for query, ranking in enumerate(order, start):
            (ranks,) = np.nonzero(classes[ranking] == classes[query])
            precisions.append(np.mean(np.arange(1, 11) / (ranks + 1)))
    scores = {"all": float(np.mean(precisions))}
    for number, domain in enumerate(gpr1200.DOMAINS):
        scores[domain] = float(np.mean(precisions[2000 * number : 2000 * number + 2000]))
    return scores


def made_up_oxford(
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, GroundTruth]:
    gallery = rng.standard_normal((5000, 2048), dtype=np.float32)
    queries = rng.standard_normal((70, 2048), dtype=np.float32)
    truths = []
    for number, query in enumerate(queries):
        easy, hard, junk = np.split(rng.permutation(5000)[:200], [60, 120])
        gallery[easy] += query
        gallery[hard] += 0.5 * query
        truths.append(QueryTruth(str(number), (0, 0, 1, 1), easy, hard, junk))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (gallery, queries)]
    return unit[0], unit[1], GroundTruth(tuple(map(str, range(5000))), tuple(truths))


def sorted_revisited(similarity_QN: np.ndarray, truth: GroundTruth) -> dict[str, float]:
    ranking = np.argsort(-similarity_QN.T, axis=0)
    places, scores = np.arange(len(ranking)), {}
    for level, names in revisited.LEVELS.items():
        rows = []
        for number, query in enumerate(truth.queries):
            relevant, junk = (np.concatenate([getattr(query, n) for n in part]) for part in names)
            found = places[np.isin(ranking[:, number], relevant)]
            skipped = places[np.isin(ranking[:, number], junk)]
            rows.append(trapezoids(without(found, skipped)))
        means = np.mean(rows, axis=0).tolist()
        keys = [f"map_{level}", *(f"mp{k}_{level}" for k in (1, 5, 10))]
        scores |= zip(keys, means, strict=True)
    return scores


def without(found: np.ndarray, skipped: np.ndarray) -> np.ndarray:
    """Lowers each place by the number of skipped ones before it."""
    passed = 0
    for i in range(len(found)):
        while passed < len(skipped) and found[i] > skipped[passed]:
            passed += 1
        found[i] -= passed
    return found


def trapezoids(ranks: np.ndarray) -> list[float]:
    area = 0.0
    for number in range(len(ranks)):
        rank = ranks[number]
        before = number / rank if rank else 1.0
        area += (before + (number + 1) / (rank + 1)) / 2
    cutoffs = [min(max(ranks) + 1, k) for k in (1, 5, 10)]
    return [area / len(ranks), *((ranks < k).sum() / k for k in cutoffs)]


if __name__ == "__main__":
    main()
