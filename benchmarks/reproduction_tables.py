"""Measures what reproduction.py trained: tables with the spread over seeds, and an image.

    python benchmarks/reproduction_tables.py --out DIR --seeds 1 2 3 [--flags IMAGES]

Writes DIR/measured.json (a finished model is not measured again), DIR/tables.md and DIR/curves.svg.
IMAGES are real flags by ISO code (see real_flags.py): no model has seen a rendering like them.
About 10 minutes for 60 models on one thread.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from real_flags import asked_flags
from reproduction import ABLATION_ROWS, LABEL_ROWS, RECIPE_ROWS, Row

from openmofi.evaluate.benchmarks import DEFAULTS
from openmofi.evaluate.data import LabelledImages, file_places
from openmofi.evaluate.knn import knn
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.measure import measure
from openmofi.evaluate.subject import Wanted
from openmofi.evaluate.vectors import ModelVectors
from openmofi.kb import KnowledgeBase

_ALL = frozenset(DEFAULTS)
_QUICK = frozenset({"retrieval", "zero-shot"})
_COLUMNS = {
    "retrieval_map": "mAP",
    "top1": "top-1",
    "knn": "kNN",
    "zero_shot": "zero-shot",
    "flags_knn": "real flags, kNN",
    "flags_zero_shot": "real flags, zero-shot",
    "flags_tag_top1": "real flags, tagging",
}
_JOINT = replace(RECIPE_ROWS[-1], title="multi-task, text and image decide together")
_COLOURS = ("#4a78b8", "#c7702e", "#2a9d62", "#b0509a", "#b59a2b", "#555555")


def main() -> None:
    """Measures, then writes the tables and the image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--flags", type=Path, help="folder of xx.png by ISO code")
    arguments = parser.parse_args()
    kept = arguments.out / "measured.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    for key, scores in _measure_all(arguments.out, arguments.seeds, arguments.flags, found):
        found[key] = scores
        kept.write_text(json.dumps(found, indent=1) + "\n")
    tables = list(_tables(found, arguments.seeds))
    (arguments.out / "tables.md").write_text("\n".join(tables) + "\n")
    print("\n".join(tables))
    _draw(arguments.out, found, arguments.seeds)


def _measure_all(
    out: Path, seeds: Sequence[int], flags: Path | None, known: dict[str, Any]
) -> Iterator[tuple[str, dict[str, float]]]:
    for seed in seeds:
        for material, rows in (
            ("demo", (*RECIPE_ROWS, *LABEL_ROWS, *ABLATION_ROWS)),
            ("shop", RECIPE_ROWS),
        ):
            folder = out / f"{material}-{seed}"
            for row in rows:
                key, model = f"{material}/{seed}/{row.name}", folder / "runs" / row.name / "model"
                if key not in known and (model / "config.json").is_file():
                    quick = row in ABLATION_ROWS
                    yield key, _measure(folder, material, model, quick, flags)


def _measure(
    folder: Path, material: str, model: Path, quick: bool, flags: Path | None
) -> dict[str, float]:
    source = ModelVectors(model, device="cpu", cache=None)
    kb = KnowledgeBase.open(folder / "kb")
    images = open_labelled(folder) if material == "demo" else _shop(folder)
    wanted = Wanted(_QUICK if quick else _ALL, kb)
    scores = dict(measure(source, material, images, wanted).scores.metrics)
    if material == "demo" and flags is not None:
        scores |= dict(_flags(source, flags, images, kb))
    return scores


def _shop(folder: Path) -> LabelledImages:
    test, train = (open_labelled(folder / name) for name in ("test.csv", "train.csv"))
    return replace(test, gallery=train)


def _flags(
    source: ModelVectors, flags: Path, world: LabelledImages, kb: KnowledgeBase
) -> Iterator[tuple[str, float]]:
    """Yields accuracies on real flags: by the world's unseen photos, by texts, by tagging."""
    asked = asked_flags(flags)
    places = file_places(flags, [path.name for _, path in asked])
    images = LabelledImages(places, tuple(entity.id for entity, _ in asked))
    measured = measure(source, "flags", images, Wanted(frozenset({"zero-shot", "tagging"}), kb))
    for name in ("zero_shot", "tag_top1"):
        if name in measured.scores.metrics:
            yield f"flags_{name}", measured.scores.metrics[name]
    photos = source.images(world.places, "photos")
    classes = sorted({*images.labels, *world.labels})
    near = knn(
        measured.encoded.vectors,
        images.codes(classes)[measured.encoded.rows],
        photos.vectors,
        world.codes(classes)[photos.rows],
    )
    yield "flags_knn", dict(near)["knn"]


# ---- tables and image -------------------------------------------------------------------------


def _tables(found: dict[str, dict[str, float]], seeds: Sequence[int]) -> Iterator[str]:
    for title, material, rows in (
        ("Demo world: recipes", "demo", RECIPE_ROWS),
        ("Demo world: labels", "demo", (*LABEL_ROWS, _JOINT)),
        ("Demo world, half the steps: classes, sampling, margin, lambda", "demo", ABLATION_ROWS),
        ("Shop photos: recipes", "shop", RECIPE_ROWS),
    ):
        measured = [_of(found, material, row, seeds) for row in rows]
        columns = [c for c in _COLUMNS if any(c in scores for m in measured for scores in m)]
        yield f"\n### {title}\n"
        yield "| trained with | seeds | " + " | ".join(_COLUMNS[c] for c in columns) + " |"
        yield "|---" * (len(columns) + 2) + "|"
        for row, scores in zip(rows, measured, strict=True):
            cells = [_cell(row, column, scores) for column in columns]
            yield f"| {row.title} | {len(scores)} | " + " | ".join(cells) + " |"


def _of(
    found: dict[str, dict[str, float]], material: str, row: Row, seeds: Sequence[int]
) -> list[dict[str, float]]:
    keys = [f"{material}/{seed}/{row.name}" for seed in seeds]
    return [found[key] for key in keys if key in found]


def _cell(row: Row, column: str, scores: Sequence[dict[str, float]]) -> str:
    """Returns mean and standard deviation; a model that learnt no texts is not asked for them."""
    untaught = column.endswith("zero_shot") and row.changes["loss"]["contrastive"] == 0
    values = [s[column] for s in scores if column in s]
    if untaught or not values:
        return "-"
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{mean(values):.3f}{spread}".replace("0.", ".")


def _draw(out: Path, found: dict[str, dict[str, float]], seeds: Sequence[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    _draw_losses(
        axes[0, 0], out, seeds, "contrastive", ("clip", "names", "contrastive", "multitask")
    )
    _draw_losses(axes[0, 1], out, seeds, "supervised", ("supervised", "multitask"))
    sweeps = (
        (axes[0, 2], "entities learnt", (("classes-24", 24), ("classes-49", 49), ("half", 98))),
        (axes[1, 0], "sampled classes", (("sampled-8", 8), ("sampled-32", 32), ("half", 98))),
        (axes[1, 1], "margin", (("margin-0", 0), ("half", 0.15), ("margin-30", 0.3))),
        (axes[1, 2], "lambda", (("lambda-10", 0.1), ("lambda-50", 0.5), ("lambda-90", 0.9))),
    )
    for axis, title, points in sweeps:
        _draw_sweep(axis, title, points, found, seeds)
    figure.savefig(out / "curves.svg", metadata={"Date": None})
    figure.savefig(out / "curves.png", dpi=110)


def _draw_losses(
    axis: Any, out: Path, seeds: Sequence[int], name: str, rows: Sequence[str]
) -> None:
    for row, colour in zip(rows, _COLOURS, strict=False):
        for seed in seeds:
            path = out / f"demo-{seed}/runs/{row}/metrics.jsonl"
            if path.is_file():
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                points = [(m["step"], m[name]) for m in lines if name in m]
                label = row if seed == seeds[0] else None
                axis.plot(*zip(*points, strict=True), color=colour, lw=0.9, alpha=0.8, label=label)
    axis.set(title=f"{name} loss, every seed", xlabel="step")
    axis.legend(frameon=False, fontsize=8)


def _draw_sweep(
    axis: Any,
    title: str,
    points: Sequence[tuple[str, float]],
    found: dict[str, dict[str, float]],
    seeds: Sequence[int],
) -> None:
    rows = {row.name: row for row in ABLATION_ROWS}
    series = [[s["retrieval_map"] for s in _of(found, "demo", rows[n], seeds)] for n, _ in points]
    xs = [x for _, x in points]
    if all(series):
        axis.plot(xs, [mean(values) for values in series], color=_COLOURS[0])
        dots = list(chain(*([(x, v) for v in vs] for x, vs in zip(xs, series, strict=True))))
        axis.scatter(*zip(*dots, strict=True), color=_COLOURS[0], s=14)
    axis.set(title=f"retrieval mAP by {title}", xlabel=title)


if __name__ == "__main__":
    main()
