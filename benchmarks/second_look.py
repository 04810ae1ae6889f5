"""A second, larger encoder that looks only where a label may turn: what it costs, what it keeps.

    pip install 'openmofi[real]' && apt install wordnet-base
    python examples/package_encoders.py ENCODERS
    python benchmarks/second_look.py demo --small DEMO/runs/clip/model --out OUT [--seeds 20 21]
    python benchmarks/second_look.py caltech101 --photos PHOTOS --encoders ENCODERS --out OUT
    python benchmarks/second_look.py plot OUT/demo.json OUT/caltech101.json --out FIGURE.svg

demo: worlds of 10,000 photos, which neither encoder has seen. --small is the `clip` encoder of
another seed's demo; the large one, which is trained first, is the same network of twice the width
(four times the multiplications) on the captions of a world of seed 3.
caltech101: captions as of real_world.py. EfficientNet-Lite0 and -Lite2 are each paired with MiniLM
on a third of the photos; the others are labelled.

Every world is labelled by the small encoder alone, by the large one alone, by both on all images,
and with several shares of images at which the large one looks; and as a baseline by a large one
that looks at images drawn at random. Prints JSON, and writes OUT/NAME.json: of each, the images
that each encoder looked at, those from which its rule was learnt included, CPU-seconds, and
precision, recall, F1 and the true rate of wrong labels at each asked one. One thread. An
interrupted run goes on with the next job; 6 CPU-minutes a world, and half an hour of training.
"""

import argparse
import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import torch
from calibrated_rate import read_truth
from real_world import NAMES, SENSES, TEMPLATES, WRONG, shared_vectors, write_listing

from openmofi.arrays.random_keys import mix_words
from openmofi.config import LabelSettings, SelectSettings
from openmofi.demo import world
from openmofi.evaluate.metrics import label_scores
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.label.second_look import SecondLook
from openmofi.model import presets
from openmofi.select import select
from openmofi.train import train
from openmofi.train.pair import pair
from openmofi.train.recipe import read_recipe

RATES = (0.01, 0.02, 0.05, 0.1)
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
PHOTOS_OF_ENTITY = 200
LARGE_SEED = 3
ALL = "both, all images"


@dataclass(frozen=True)
class Material:
    """Pairs with their truth, and two encoders."""

    source: Path
    kb: Path
    small: str
    large: str
    shown: dict[str, str]
    nameable: set[tuple[str, str]]
    key: str
    """Column of the labels by which the truth names an image."""
    background: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["demo", "caltech101", "plot"])
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--large", type=Path, help="a large encoder that was trained before")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--encoders", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[20, 21])
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--rate", type=float, default=0.05, help="that labels are made for")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "plot":
        plot(arguments.results, arguments.out)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    make = demo_material if arguments.what == "demo" else caltech_material
    found = {}
    for seed in arguments.seeds:
        material = make(arguments, seed)
        folder = arguments.out / f"{arguments.what}-{seed}"
        found[seed] = measure(material, folder, arguments.rate, arguments.shares)
    text = json.dumps({"rate": arguments.rate, "seeds": found}, indent=1)
    (arguments.out / f"{arguments.what}.json").write_text(text)
    print(text)


# ---------------------------------------------------------------- what is labelled


def demo_material(arguments: argparse.Namespace, seed: int) -> Material:
    out = arguments.out
    large = arguments.large or out / "large" / "model"
    if not large.is_dir():
        train_large(draw(out, LARGE_SEED, photos=120), large.parent)
    folder = draw(out, seed, photos=PHOTOS_OF_ENTITY)
    truth = read_truth(folder / "truth.parquet")
    models = str(arguments.small), str(large)
    return Material(folder / "shards", folder / "kb", *models, *truth, "key", background=512)


def draw(out: Path, seed: int, *, photos: int) -> Path:
    """Returns a world of half of the demo's entities, with its knowledge base."""
    folder = out / f"world-{seed}"
    if not (folder / "kb").is_dir():
        size = {"short": replace(world.SIZES["short"], num_train=photos)}
        with patch.dict(world.SIZES, size):
            world.draw_world(folder, size="short", seed=seed)
        build_kb([folder / "dump.json.gz", folder / "signals.csv"], out=folder / "kb")
    return folder


def train_large(folder: Path, out: Path) -> None:
    """Trains the network of the preset nano at twice its width, on captions."""
    with as_file(files("openmofi.demo") / "recipes" / "clip.yaml") as path:
        recipe = read_recipe(path)
    model = replace(recipe.model, image_size=64)
    given = {"steps": 600, "batch_size": 128, "seed": LARGE_SEED, "precision": "bf16"}
    settings = replace(recipe, model=model, device="cpu", threads=1, **given)
    with patch.object(presets, "NANO_DEPTH", 1.0):
        train(settings, data=folder / "shards", out=out, resume=(out / "config.yaml").is_file())


def caltech_material(arguments: argparse.Namespace, seed: int) -> Material:
    out = arguments.out / f"photos-{seed}"
    out.mkdir(exist_ok=True)
    kb = arguments.out / "wordnet"
    if not kb.is_dir():
        build_kb([arguments.wordnet], out=kb)
    parts = captioned(arguments.photos, seed)
    for name, rows in parts.items():
        write_listing(out / f"{name}.csv", rows)
    models = []
    for name in ("lite0", "lite2"):
        paired = out / name
        if not (paired / "model").is_dir():
            shared_vectors(paired, arguments.out / "vectors")
            encoders = arguments.encoders / name, arguments.encoders / "minilm"
            pair(*encoders, data=out / "paired.csv", out=paired, device="cpu")
        models.append(str(paired / "model"))
    rows = parts["labelled"]
    paths = {row["file"]: row["file"].lstrip("/") for row in rows}
    shown = {paths[row["file"]]: SENSES[row["class"]] for row in rows}
    right = [row for row in rows if row["named"] == row["class"]]
    nameable = {(paths[row["file"]], SENSES[row["class"]]) for row in right}
    return Material(out / "labelled.csv", kb, *models, shown, nameable, "path", background=200)


def captioned(photos: Path, seed: int) -> dict[str, list[dict[str, str]]]:
    """Returns rows of the photos that encoders are paired on, and of those that are labelled."""
    rng, classes = random.Random(seed), sorted(SENSES)
    parts: dict[str, list[dict[str, str]]] = {"paired": [], "labelled": []}
    for shown in classes:
        found = sorted((photos / shown).glob("*.jpg"))
        rng.shuffle(found)
        for number, file in enumerate(found):
            named = rng.choice(classes) if rng.random() < WRONG else shown
            word = NAMES.get(named, named.replace("_", " "))
            caption = rng.choice(TEMPLATES).format(word)
            row = {"file": str(file.resolve()), "caption": caption, "class": shown, "named": named}
            parts["labelled" if number % 3 else "paired"].append(row)
    return parts


# ---------------------------------------------------------------- what comes out


def measure(
    material: Material, folder: Path, rate: float, shares: tuple[float, ...]
) -> dict[str, Any]:
    """Returns the figures of every way to look; what both encoders think of texts comes first."""
    folder.mkdir(exist_ok=True)
    small, large = material.small, material.large
    ways: dict[str, Callable[[Path], dict[str, Any]]] = {
        ALL: lambda out: run(material, out, small, large, rate, 1.0),
        "small alone": lambda out: run(material, out, small),
        "large alone": lambda out: run(material, out, large),
    }
    for share in shares:
        ways[f"then {share:g}"] = lambda out, share=share: run(
            material, out, small, large, rate, share
        )
    ways["random 0.3"] = lambda out: at_random(
        lambda: run(material, out, small, large, rate, 0.3), 0.3
    )
    found = {}
    for name, way in ways.items():
        file = folder / f"{name.replace(' ', '-')}.json"
        if not file.is_file():
            out = folder / "i2e"
            shutil.rmtree(out, ignore_errors=True)
            figures = way(out)
            figures["rates"] = {f"{r:g}": judged(material, out, r) for r in RATES}
            file.write_text(json.dumps(figures))
        found[name] = json.loads(file.read_text())
    return found


def run(
    material: Material,
    out: Path,
    model: str,
    then: str | None = None,
    rate: float = 0.05,
    share: float = 0.2,
) -> dict[str, Any]:
    """Labels; returns what each encoder looked at, and CPU-seconds."""
    more = {} if then is None else {"then_rate": rate, "then_share": share}
    settings = LabelSettings(workers=1, background=material.background, **more)
    began = time.process_time()
    totals = label(
        material.source, kb=material.kb, model=model, then=then, out=out, settings=settings
    )
    seconds = time.process_time() - began
    with np.load(out / "background.npz") as stored:
        learnt = len(stored["images"])
    figures: dict[str, Any] = {"cpu_seconds": round(seconds, 1), "pairs": totals.rows}
    figures["first"] = totals.looked + learnt
    figures["second"] = 0 if then is None else totals.looked_twice + learnt
    if then is not None:
        figures["learnt"] = json.loads((out / "then.json").read_text())["card"]
    return figures


def at_random(work: Callable[[], dict[str, Any]], share: float) -> dict[str, Any]:
    """Runs a job whose large encoder looks at a share of the mentions, drawn by their terms."""

    def looks(self, text_score, clip_z, begins):
        bits = np.ascontiguousarray(clip_z[begins], np.float32).view(np.uint32).astype(np.uint64)
        draws = mix_words(12345, bits).astype(np.float64) / 2.0**64
        return ~np.isnan(clip_z[begins]) & (draws < share)

    with patch.object(SecondLook, "looks", looks):
        return work()


def judged(material: Material, out: Path, rate: float) -> dict[str, float]:
    """Returns how right the labels are that `select` keeps at an asked rate."""
    settings = SelectSettings(false_label_rate=rate, min_images=1, duplicates="keep")
    kept = select(out, name="judged", settings=settings).out
    ids = pq.read_table(kept / "vocabulary.parquet")["id"].to_pylist()
    rows = pq.read_table(kept / "keep.parquet", columns=[material.key, "classes"]).to_pylist()
    labels = {(row[material.key].lstrip("/"), ids[c]) for row in rows for c in row["classes"]}
    scores = label_scores(labels, set(material.shown.items()), material.nameable)
    return {name: round(value, 4) for name, value in scores.items()} | {"labels": len(labels)}


# ---------------------------------------------------------------- what it looks like


def plot(results: list[Path], out: Path) -> None:
    """Draws F1 against the share of images that the large encoder saw, means over the seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(5 * len(results), 3.6), squeeze=False)
    for axis, file in zip(axes[0], results, strict=True):
        stored = json.loads(file.read_text())
        seeds, rate = list(stored["seeds"].values()), f"{stored['rate']:g}"
        points = {
            way: (
                float(np.mean([seed[way]["second"] / seed[ALL]["second"] for seed in seeds])),
                float(np.mean([seed[way]["rates"][rate]["f1"] for seed in seeds])),
            )
            for way in seeds[0]
        }
        curve = [points[way] for way in points if way.startswith("then")]
        both = points[ALL]
        axis.plot(*zip(*[*curve, both], strict=True), "o-", color="tab:blue", label="--then")
        axis.plot(*points["random 0.3"], "x", color="tab:gray", label="images drawn at random")
        axis.axhline(points["large alone"][1], color="tab:red", ls="--", label="large alone")
        axis.axhline(points["small alone"][1], color="tab:green", ls=":", label="small alone")
        axis.set(title=f"{file.stem}, asked {rate}", xlabel="images that the large encoder saw")
        axis.set(ylabel="F1 of labels", xlim=(0, 1.03))
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
