"""All vectors of an index -> a map of them by t-SNE, with similar vectors close together.

Up to 30,000 vectors are laid out together. Of a larger number, a sample is, and every other vector
is placed between its nearest neighbours in the sample (openTSNE, doi 10.1101/731877).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.progress import Progress, progress
from openmofi.search.changes import set_map
from openmofi.search.index import Index

_SAMPLE = 30_000
_PCA_DIM = 50
_PERPLEXITY = 30
_ITERATIONS = (250, 500)  # with and without early exaggeration, openTSNE's own defaults
_REPORT_EVERY = 10
_NEIGHBOURS = 10
"""Neighbours in the sample between which a vector is placed."""
_PLACED_AT_ONCE = 10_000
_STEPS_FOR_NEIGHBOURS = 50
"""Steps of the bar that finding the sample's neighbours counts for, by the time it takes."""
_MARGIN = 0.02


def make_map(index: Index, *, seed: int = 0, threads: int = 2) -> Index:
    """Lays out the rows of an index and stores their places; returns the index in its new state.

    Args:
        index: the index to lay out; deleted rows get no place.
        seed: seed of the sample and of the layout.
        threads: number of threads.
    """
    live = np.flatnonzero(index.live)
    points = np.full((index.num_rows, 2), np.nan, np.float32)
    read = lambda rows: index.vectors(live[rows])  # noqa: E731
    points[live] = _lay_out(read, len(live), seed=seed, threads=threads)
    set_map(index, points)
    return Index.open(index.folder)


def lay_out(
    vectors: Float[np.ndarray, "n dim"], *, seed: int = 0, threads: int = 2
) -> Float[np.ndarray, "n 2"]:
    """Returns a point per vector, within the unit square."""
    return _lay_out(vectors.__getitem__, len(vectors), seed=seed, threads=threads)


def _lay_out(
    read: Callable[[np.ndarray], np.ndarray], count: int, *, seed: int, threads: int
) -> Float[np.ndarray, "count 2"]:
    """Lays vectors out that are read by their numbers, some thousand at a time."""
    if count < 3:  # too few for neighbourhoods
        return np.linspace((_MARGIN, 0.5), (1 - _MARGIN, 0.5), count, dtype=np.float32)
    from sklearn.decomposition import PCA

    key = random_key(seed, Purpose.MAP)
    rng = np.random.default_rng(key)
    sample = np.sort(rng.permutation(count)[:_SAMPLE])
    vectors = read(sample)
    if np.ptp(vectors, axis=0).max() < 1e-6:  # all are equal
        return np.full((count, 2), 0.5, np.float32)
    others = np.setdiff1d(np.arange(count), sample)
    dim = min(_PCA_DIM, vectors.shape[1], len(sample))
    pca = PCA(dim, random_state=key >> 32).fit(vectors)
    known = pca.transform(vectors)
    steps = _STEPS_FOR_NEIGHBOURS + sum(_ITERATIONS) + -(-len(others) // _PLACED_AT_ONCE)
    points = np.empty((count, 2), np.float32)
    with progress("map", total=steps, unit="steps") as bar:
        laid = points[sample] = _tsne(known, seed=key >> 32, threads=threads, bar=bar)
        for begin in range(0, len(others), _PLACED_AT_ONCE):
            rows = others[begin : begin + _PLACED_AT_ONCE]
            points[rows] = _place(pca.transform(read(rows)), known, laid, threads=threads)
            bar.advance()
    low, high = points.min(0), points.max(0)
    side = max(float((high - low).max()), 1e-9)
    centred = (points - (low + high) / 2) / side
    return (0.5 + centred * (1 - 2 * _MARGIN)).astype(np.float32)


def _tsne(
    vectors: Float[np.ndarray, "n dim"], *, seed: int, threads: int, bar: Progress
) -> Float[np.ndarray, "n 2"]:
    """Lays vectors out together.

    Args:
        vectors: the sample.
        seed: of 32 bits.
        threads: number of threads.
        bar: is advanced by _STEPS_FOR_NEIGHBOURS and the _ITERATIONS.
    """
    from openTSNE import TSNE
    from openTSNE.affinity import MultiscaleMixture  # what TSNE takes by itself

    same = {"n_jobs": threads, "random_state": seed}
    perplexity = min(_PERPLEXITY, max(2, (len(vectors) - 1) // 3))
    affinities = MultiscaleMixture(vectors, perplexity, **same)
    bar.advance(_STEPS_FOR_NEIGHBOURS)
    tsne = TSNE(
        early_exaggeration_iter=_ITERATIONS[0],
        n_iter=_ITERATIONS[1],
        callbacks=lambda *_: bar.advance(_REPORT_EVERY),
        callbacks_every_iters=_REPORT_EVERY,
        **same,
    )
    return np.asarray(tsne.fit(vectors, affinities=affinities), np.float32)


def _place(
    vectors: Float[np.ndarray, "n dim"],
    known: Float[np.ndarray, "m dim"],
    laid: Float[np.ndarray, "m 2"],
    *,
    threads: int,
) -> Float[np.ndarray, "n 2"]:
    """Returns the median of the points of each vector's nearest in the sample.

    So does openTSNE's `prepare_partial`, after it has sought three times the perplexity of
    neighbours, by an approximation.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        given = (np.ascontiguousarray(each, np.float32) for each in (vectors, known))
        _, nearest = faiss.knn(*given, min(_NEIGHBOURS, len(known)))
    finally:
        faiss.omp_set_num_threads(before)
    return np.median(laid[nearest], axis=1)
