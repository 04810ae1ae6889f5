"""All vectors of an index -> a map of them by t-SNE, with similar vectors close together.

Up to 30,000 vectors are laid out together. Of a larger number, a sample is, and every other vector
is placed between its nearest neighbours in the sample (openTSNE, doi 10.1101/731877).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.progress import progress
from openmofi.search.changes import set_map
from openmofi.search.index import Index

_SAMPLE = 30_000
_PCA_DIM = 50
_PERPLEXITY = 30
_ITERATIONS = (250, 500)  # with and without early exaggeration, openTSNE's own defaults
_REPORT_EVERY = 10
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
    points[live] = lay_out(index.vectors(live), seed=seed, threads=threads)
    set_map(index, points)
    return Index.open(index.folder)


def lay_out(
    vectors: Float[np.ndarray, "n dim"], *, seed: int = 0, threads: int = 2
) -> Float[np.ndarray, "n 2"]:
    """Returns a point per vector, within the unit square."""
    if len(vectors) < 3:  # too few for neighbourhoods
        return np.linspace((_MARGIN, 0.5), (1 - _MARGIN, 0.5), len(vectors), dtype=np.float32)
    from openTSNE import TSNE
    from sklearn.decomposition import PCA

    if np.ptp(vectors, axis=0).max() < 1e-6:  # all are equal
        return np.full((len(vectors), 2), 0.5, np.float32)
    key = random_key(seed, Purpose.MAP)
    rng = np.random.default_rng(key)
    sample = np.sort(rng.permutation(len(vectors))[:_SAMPLE])
    dim = min(_PCA_DIM, vectors.shape[1], len(sample))
    pca = PCA(dim, random_state=key >> 32).fit(vectors[sample])
    with progress("map", total=sum(_ITERATIONS), unit="steps") as bar:

        def report(*_: object) -> None:
            bar.advance(_REPORT_EVERY)

        tsne = TSNE(
            perplexity=min(_PERPLEXITY, max(2, (len(sample) - 1) // 3)),
            early_exaggeration_iter=_ITERATIONS[0],
            n_iter=_ITERATIONS[1],
            n_jobs=threads,
            random_state=key >> 32,  # only 32 bits are accepted
            callbacks=report,
            callbacks_every_iters=_REPORT_EVERY,
        )
        laid = tsne.fit(pca.transform(vectors[sample]))
        points = np.empty((len(vectors), 2), np.float32)
        points[sample] = laid
        others = np.setdiff1d(np.arange(len(vectors)), sample)
        if len(others):
            points[others] = laid.prepare_partial(pca.transform(vectors[others]), k=10)
    low, high = points.min(0), points.max(0)
    side = max(float((high - low).max()), 1e-9)
    centred = (points - (low + high) / 2) / side
    return (0.5 + centred * (1 - 2 * _MARGIN)).astype(np.float32)
