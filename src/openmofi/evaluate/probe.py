"""Linear probe as CLIP does it: logistic regression on frozen vectors, its strength searched for.

The paper's section on evaluation (arXiv 2103.00020): L-BFGS, at most 1,000 iterations; of the
training part a validation split chooses C, first on a grid of two decades between 1e-6 and 1e6,
then halving the interval around the peak until there are 8 steps per decade; the result is fitted
to all training vectors. Where several C validate equally well, which the paper does not speak of,
the peak is the middle of the widest plateau: at its ends the accuracy is about to fall. Data that
every C separates gets C = 1, where the first of equals would be 1e-6. The vectors are taken as they
are, not standardised; CLIP's own probe takes them before the projection to the space that images
and texts share, this one whatever it is given.

Legend: N images, D width, K classes (one row of weights for two classes, as scikit-learn has it).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from openmofi.errors import InputError
from openmofi.evaluate.metrics import accuracies, check_embeddings, true_ranks
from openmofi.evaluate.probe_solvers import Probe, Solver, solve_sklearn, solver_on
from openmofi.progress import progress

_STEPS_PER_DECADE, _LARGEST_DECADE, _COARSE_DECADES = 8, 6, 2
_VALIDATION = 0.2


def probe(
    vectors: np.ndarray,
    labels: np.ndarray,
    gallery: np.ndarray,
    gallery_labels: np.ndarray,
    *,
    device: str = "cpu",
    seed: int = 0,
) -> Iterator[tuple[str, float]]:
    """Yields the accuracies on test vectors, the chosen C and whether the solver converged.

    Images of classes that the gallery lacks count as wrong; how many these are is yielded.

    Args:
        vectors: test images, [Q, D].
        labels: theirs, [Q].
        gallery: training images, [N, D].
        gallery_labels: theirs, [N].
        device: cpu fits with scikit-learn; cuda or cuda:N with PyTorch.
        seed: of the validation split.

    Raises:
        InputError: as `fit_probe`; or test vectors that are not finite, or not one per label.
    """
    # Before dozens of classifiers are fitted.
    check_embeddings(vectors, rows=len(labels))
    fitted = fit_probe(gallery, gallery_labels, solver=solver_on(device), seed=seed)
    yield from probe_scores(fitted, vectors, labels, np.unique(gallery_labels))


def probe_scores(
    fitted: Probe, vectors: np.ndarray, labels: np.ndarray, classes: np.ndarray
) -> Iterator[tuple[str, float]]:
    """Yields what `probe` does, of a fitted classifier.

    Args:
        fitted: what `fit_probe` returns.
        vectors: test images, [Q, D].
        labels: theirs, [Q].
        classes: the distinct training labels, sorted.

    Raises:
        InputError: vectors that are not finite, or not one per label.
    """
    check_embeddings(vectors, rows=len(labels))
    labels = np.asarray(labels)
    column = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    known = classes[column] == labels
    yield from accuracies(
        "probe", _ranks(fitted, vectors, np.where(known, column, -1)), labels, len(classes)
    )
    yield "probe_c", fitted.C
    yield "probe_converged", float(fitted.converged)
    unseen = len(np.unique(labels[~known]))
    if unseen:
        yield "probe_unseen_classes", float(unseen)


def _ranks(fitted: Probe, vectors: np.ndarray, columns: np.ndarray) -> np.ndarray:
    weights, biases = _all_rows(fitted)
    ones = np.ones((len(vectors), 1), dtype=np.float32)
    rows = np.concatenate([weights, biases[:, None]], axis=1).astype(np.float32)
    return true_ranks(np.concatenate([vectors, ones], axis=1), columns, rows)


def _all_rows(fitted: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Returns a row of weights per class; the first of two classes scores zero."""
    weights, biases = fitted.weights_KD, fitted.biases_K
    if len(weights) > 1:
        return weights, biases
    return np.concatenate([0 * weights, weights]), np.concatenate([0 * biases, biases])


def fit_probe(
    gallery: np.ndarray, labels: np.ndarray, *, solver: Solver | None = None, seed: int = 0
) -> Probe:
    """Returns the classifier of the best C, fitted to all training vectors.

    Args:
        gallery: [N, D].
        labels: [N]; the classifier's rows are their sorted distinct values.
        solver: (vectors, columns, C, where to start) -> Probe; scikit-learn by default.
        seed: of the validation split.

    Raises:
        InputError: vectors that are not finite, one class only, or no class of two images.
    """
    solver = solver or solve_sklearn
    check_embeddings(gallery, rows=len(labels))
    classes, columns = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"A linear probe needs two classes or more; there is {len(classes)}.")
    held_out = validation_rows(columns, seed=seed)
    if not held_out.any():
        raise InputError(
            f"A linear probe needs a class of two training images or more; each of the "
            f"{len(classes)} classes has one."
        )
    best = _search(gallery, columns, held_out, solver)
    return solver(gallery, columns, best.C, best)


def validation_rows(columns: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns which images choose C: a fifth of each class, at least one, never a class's only."""
    order = np.random.default_rng(seed).permutation(len(columns))
    order = order[np.argsort(columns[order], kind="stable")]
    counts = np.bincount(columns)
    wanted = np.where(counts > 1, np.maximum((counts * _VALIDATION).astype(int), 1), 0)
    within = np.arange(len(columns)) - np.repeat(np.cumsum(counts) - counts, counts)
    held_out = np.zeros(len(columns), dtype=bool)
    held_out[order] = within < np.repeat(wanted, counts)
    return held_out


def _search(
    gallery: np.ndarray, columns: np.ndarray, held_out: np.ndarray, solver: Solver
) -> Probe:
    """Returns the classifier with the best validation accuracy; of equal ones, that of `_peak`."""
    train, train_columns = gallery[~held_out], columns[~held_out]
    test, test_columns = gallery[held_out], columns[held_out]
    tried: dict[int, tuple[float, Probe]] = {}  # by logarithm of C, in steps
    end, width = _LARGEST_DECADE * _STEPS_PER_DECADE, _COARSE_DECADES * _STEPS_PER_DECADE
    todo, peak = list(range(-end, end + 1, width)), 0
    with progress("linear probe", unit="fits") as bar:
        while width:
            for step in todo:
                near = min(tried, key=lambda other: (abs(other - step), other), default=None)
                start = None if near is None else tried[near][1]
                fitted = solver(train, train_columns, 10 ** (step / _STEPS_PER_DECADE), start)
                accuracy = _accuracy(_ranks(fitted, test, test_columns))
                tried[step] = accuracy, fitted
                bar.advance(note=f"C {fitted.C:.2g}: {accuracy:.3f}")
            peak = _peak({step: accuracy for step, (accuracy, _) in tried.items()})
            width //= 2
            todo = [s for s in (peak - width, peak + width) if abs(s) <= end and s not in tried]
    return tried[peak][1]


def _peak(accuracy: dict[int, float]) -> int:
    """Returns the step in the middle of the widest run of steps that share the best accuracy.

    Of steps equally near to the middle, and of runs equally wide, the first.
    """
    best, runs, unbroken = max(accuracy.values()), [], False
    for step in sorted(accuracy):
        if accuracy[step] == best:
            if not unbroken:
                runs.append([])
            runs[-1].append(step)
        unbroken = accuracy[step] == best
    widest = max(runs, key=lambda run: run[-1] - run[0])
    return min(widest, key=lambda step: abs(2 * step - widest[0] - widest[-1]))


def _accuracy(ranks: np.ndarray) -> float:
    return float((ranks == 0).mean())
