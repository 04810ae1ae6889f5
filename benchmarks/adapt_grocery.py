"""Retrieval of shop photos with a real encoder's features, before and after `adapt`, and rivals.

    python benchmarks/adapt_grocery.py [--shared ../shared] [--seeds 0 1 2 3 4]

Features: tiny-darknet, 128 numbers for each of 2,207 photos of 81 products. Two questions per seed,
each answered by retrieval mAP among the test photos alone: `unseen` trains on the photos of half of
the products and tests on the other half; `within` trains on half of the photos of every product and
tests on the rest. `adapt` runs as a user runs it, with its defaults, and chooses on a held-out part
of the training half. The rivals' settings are the best of a grid on seeds 100 and 101, chosen for
each question by itself, which `adapt` is not. Prints JSON. benchmarks/adapt_real.py asks the same
of stronger features.
"""

import argparse
import csv
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from openmofi.config import AdaptSettings
from openmofi.evaluate.metrics import average_precisions
from openmofi.train.adapt import adapt
from openmofi.train.closed_forms import FLOORS, SHRINKAGES, closed_forms, moments
from openmofi.train.linear_maps import Examples, Fit, apply_map

_TUNING_SEEDS = (100, 101)
_SHARED = Path(__file__).resolve().parents[2] / "shared"
Method = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(training vectors, their labels, test vectors) -> mapped test vectors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=_SHARED)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # solvers that stop before they converge
    vectors, labels = read(arguments.shared / "data" / "grocery")
    result = {"unseen": {}, "within": {}}
    for question, halves in (("unseen", split_products), ("within", split_photos)):
        for name, grid in METHODS.items():
            method, chosen = tuned(grid, halves, vectors, labels)
            start = time.process_time()
            scores = [measure(method, halves, vectors, labels, seed) for seed in arguments.seeds]
            seconds = (time.process_time() - start) / len(scores)
            result[question][name] = {
                "map": round(float(np.mean(scores)), 4),
                "std": round(float(np.std(scores)), 4),
                "by_seed": [round(score, 4) for score in scores],
                "chosen": chosen,
                "cpu_seconds": round(seconds, 2),
            }
    print(json.dumps(result, indent=2))


def read(grocery: Path) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.load(grocery / "tiny_darknet_features.npy").astype(np.float32)
    with (grocery / "images.csv").open() as file:
        labels = np.array([int(row["class_id"]) for row in csv.DictReader(file)])
    return unit(vectors), labels


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def split_products(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns which photos are tested: all of half of the products."""
    products = np.random.default_rng(seed).permutation(np.unique(labels))
    return np.isin(labels, products[len(products) // 2 :])


def split_photos(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns which photos are tested: half of every product's."""
    random, tested = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for product in np.unique(labels):
        photos = random.permutation(np.flatnonzero(labels == product))
        tested[photos[len(photos) // 2 :]] = True
    return tested


def tuned(grid: dict[str, Method], halves, vectors, labels) -> tuple[Method, str]:
    """Returns the method and name of the setting that does best on the tuning seeds."""
    if len(grid) == 1:
        ((name, method),) = grid.items()
        return method, name
    scores = {
        name: np.mean([measure(method, halves, vectors, labels, s) for s in _TUNING_SEEDS])
        for name, method in grid.items()
    }
    best = max(scores, key=lambda name: scores[name])
    return grid[best], best


def measure(method: Method, halves, vectors, labels, seed: int) -> float:
    test = halves(labels, seed)
    mapped = unit(method(vectors[~test], labels[~test], vectors[test]))
    return float(average_precisions(mapped, labels[test], include_self=False).mean())


def adapted(**changes) -> Method:
    def method(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            np.save(folder / "vectors.npy", train)
            (folder / "labels.csv").write_text("\n".join(["label", *map(str, labels)]) + "\n")
            adapt(
                folder / "vectors.npy",
                labels=folder / "labels.csv",
                out=folder / "run",
                changes=changes,
            )
            maps = load_file(folder / "run" / "maps.safetensors")
            return apply_map(
                test, maps["image"], maps["image_mean"], power=float(maps["image_power"])
            )

    return method


def trained_out(pull: float) -> Method:
    """Trains to the last step, without any held-out part."""

    def method(train, labels, test):
        _, targets = np.unique(labels, return_inverse=True)
        examples = Examples(train, np.arange(len(train)), targets[:, None], targets.max() + 1)
        fit = Fit(examples, AdaptSettings(), pull=pull)
        fit.advance(fit.settings.steps)
        return apply_map(test, fit.maps.image_DD.detach())

    return method


def raised(name: str) -> Method:
    """Gives one of the closed forms that `adapt` begins from, without choosing or training."""

    def method(train, labels, test):
        _, targets = np.unique(labels, return_inverse=True)
        forms = closed_forms(moments(train, np.arange(len(train)), targets), None)
        maps = next(form.maps for form in forms if form.name == name)
        return maps.apply_to_images(test)

    return method


def lda(shrinkage: float, width: int | None) -> Method:
    def method(train, labels, test):
        model = LinearDiscriminantAnalysis("eigen", shrinkage=shrinkage, n_components=width)
        return model.fit(train, labels).transform(test)

    return method


def whitened_within(shrinkage: float) -> Method:
    """Centres, and whitens what differs among photos of one product."""

    def method(train, labels, test):
        _, places = np.unique(labels, return_inverse=True)
        sums = np.zeros((places.max() + 1, train.shape[1]))
        np.add.at(sums, places, train)
        inner = train - (sums / np.bincount(places)[:, None])[places]
        covariance = inner.T @ inner / len(inner)
        ridge = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        values, axes = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * ridge)
        return (test - train.mean(0)) @ (axes / np.sqrt(values)) @ axes.T

    return method


def classifier(strength: float, output: str) -> Method:
    def method(train, labels, test):
        model = LogisticRegression(C=strength, max_iter=300).fit(train, labels)
        if output == "probabilities":
            return model.predict_proba(test)
        return model.decision_function(test) if output == "logits" else test @ model.coef_.T

    return method


def pca(width: int, *, whiten: bool) -> Method:
    return lambda train, labels, test: PCA(width, whiten=whiten).fit(train).transform(test)


_STRENGTHS = (1, 10, 100, 1000)
METHODS: dict[str, dict[str, Method]] = {
    "as they are": {"": lambda train, labels, test: test},
    "adapt": {"defaults": adapted()},
    "adapt, favour known": {"favour=known": adapted(favour="known")},
    "adapt, favour unseen": {"favour=unseen": adapted(favour="unseen")},
    "adapt, pull 0 (ablation)": {"pull=0": adapted(pull=0.0)},
    "maps trained to the end, pull 0 (ablation)": {"pull=0": trained_out(0.0)},
    "maps trained to the end, pull 1": {"pull=1": trained_out(1.0)},
    "adapt, pull 1": {"pull=1": adapted(pull=1.0)},
    "adapt, scale 16": {"scale=16": adapted(scale=16.0)},
    "centred": {"": lambda train, labels, test: test - train.mean(0)},
    "PCA": {f"width={w}": pca(w, whiten=False) for w in (32, 64, 128)},
    "PCA-whitening": {f"width={w}": pca(w, whiten=True) for w in (16, 32, 64, 128)},
    "LDA": {
        f"shrinkage={s}, width={w}": lda(s, w)
        for s in (0.001, 0.03, 0.1, 0.3, 0.5, 0.7)
        for w in (None, 20)
    },
    "within-class whitening, centred": {
        f"shrinkage={s}": whitened_within(s) for s in (0.01, 0.03, 0.1, 0.3, 0.5, 0.7)
    },
    "whitening that raises between-class directions": {
        name: raised(name)
        for name in (f"whitened, shrinkage {s:g}, floor {f:g}" for s in SHRINKAGES for f in FLOORS)
    },
    "linear classifier's rows as a map": {f"C={c}": classifier(c, "map") for c in _STRENGTHS},
    "linear classifier's logits": {f"C={c}": classifier(c, "logits") for c in _STRENGTHS},
    "linear classifier's probabilities": {
        f"C={c}": classifier(c, "probabilities") for c in _STRENGTHS
    },
}


if __name__ == "__main__":
    main()
