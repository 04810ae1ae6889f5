"""The whole story on the built-in world, every number measured against the truth file.

    draw -> kb -> train clip -> label -> select -> train the others -> evaluate -> index -> report

A finished stage is noted in stages.json; an interrupted demo continues with the next one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from openmofi.config import (
    KBSettings,
    LabelSettings,
    SelectSettings,
    TrainSettings,
)
from openmofi.demo.report import write_report
from openmofi.demo.tables import METRICS
from openmofi.demo.world import PHOTO_SIZE, SizeName, check_seed, draw_world
from openmofi.embed import embed
from openmofi.errors import MismatchError, OpenMOFIError
from openmofi.evaluate import evaluate
from openmofi.evaluate.metrics import label_scores
from openmofi.files.folders import local_path, replace_file
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.schema import TAG_CALIBRATION
from openmofi.search import Index
from openmofi.search.layout import make_map
from openmofi.select import select
from openmofi.select.report import inspect
from openmofi.tag import Tagger
from openmofi.tag.calibrate import calibrate
from openmofi.train import train
from openmofi.train.recipe import read_recipe

RECIPES = ("clip", "contrastive", "supervised", "multitask")
ORDERS: dict[str, Literal["caption-match", "text-first", "joint"]] = {
    "caption_match": "caption-match",
    "text_first": "text-first",
    "joint": "joint",
}


@dataclass(frozen=True)
class Size:
    """The recipes that are trained, and the compute that each of them gets."""

    recipes: tuple[str, ...]
    """The first model is used by `label`, the last one by the index."""

    steps: int
    batch_size: int
    min_images: int
    background: int
    false_label_rate: float
    """The rate for every selection; a small world has too little data for a strict one."""
    image_size: int = PHOTO_SIZE
    """Pixels per side that the encoders see."""


SIZES: dict[SizeName, Size] = {
    "small": Size(
        RECIPES, 120, 32, min_images=2, background=64, false_label_rate=0.2, image_size=32
    ),
    "short": Size(
        ("clip", "multitask"), 320, 128, min_images=5, background=512, false_label_rate=0.03
    ),
    "full": Size(RECIPES, 700, 128, min_images=5, background=512, false_label_rate=0.03),
}


def run_demo(out: Path | str, *, size: SizeName = "short", seed: int = 1) -> dict[str, Any]:
    """Runs every stage; returns the contents of results.json.

    Raises:
        SettingsError: the seed is negative.
        MismatchError: `out` contains a demo of another size or seed.
    """
    check_seed(seed)
    story = Story(local_path(out), size, seed)
    story.run()
    return story.results


class Story:
    """The stages with their results and times."""

    def __init__(self, out: Path, size: SizeName, seed: int):
        self.out, self.size_name, self.size, self.seed = out, size, SIZES[size], seed
        self.results: dict[str, Any] = {"labels": {}, "models": {}, "seconds": {}}
        self.results |= {"seed": seed, "size": size}
        self._open_notes()

    def run(self) -> None:
        """Runs the stages that are not finished yet."""
        out = self.out
        self._stage("draw", self._draw)
        self._stage("kb", self._build_kb)
        self._stage("train clip", lambda: self._train("clip", out / "shards"))
        self._stage("label", self._label)
        self._stage("select", self._select)
        for recipe in self.size.recipes[1:]:
            data = out / "i2e" / "select" / "joint"
            self._stage(f"train {recipe}", lambda r=recipe, d=data: self._train(r, d))
        self._stage("evaluate", self._evaluate)
        self._stage("index", self._index)
        self._stage("report", self._report)

    def _draw(self) -> None:
        draw_world(self.out, size=self.size_name, seed=self.seed)

    def _build_kb(self) -> None:
        sources = [self.out / "dump.json.gz", self.out / "signals.csv"]
        build_kb(sources, out=self.out / "kb", settings=KBSettings())

    def _train(self, recipe: str, data: Path) -> None:
        run = self.out / "runs" / recipe
        settings = self._settings(recipe)
        summary = train(settings, data=data, out=run, resume=(run / "config.yaml").is_file())
        if not summary.finished:
            raise OpenMOFIError("Stopped; repeat the command to continue from the last checkpoint.")

    def _settings(self, recipe: str) -> TrainSettings:
        with as_file(files("openmofi.demo") / "recipes" / f"{recipe}.yaml") as path:
            settings = read_recipe(path)
        return replace(
            settings,
            model=replace(settings.model, image_size=self.size.image_size),
            steps=self.size.steps,
            batch_size=self.size.batch_size,
            seed=self.seed,
        )

    def _label(self) -> None:
        label(
            self.out / "shards",
            kb=self.out / "kb",
            model=str(self.out / "runs" / "clip" / "model"),
            out=self.out / "i2e",
            settings=LabelSettings(background=self.size.background),
        )

    def _select(self) -> None:
        truth = _Truth.read(self.out / "truth.parquet")
        for name, order in ORDERS.items():
            settings = SelectSettings(
                order=order,
                min_images=self.size.min_images,
                false_label_rate=self.size.false_label_rate,
            )
            summary = select(self.out / "i2e", name=name, settings=settings)
            ids = pq.read_table(summary.out / "vocabulary.parquet")["id"].to_pylist()
            keep = pq.read_table(summary.out / "keep.parquet", columns=["key", "classes"])
            labels = {(row["key"], ids[c]) for row in keep.to_pylist() for c in row["classes"]}
            self.results["labels"][name] = truth.score(labels)

    def _evaluate(self) -> None:
        for recipe in self.size.recipes:
            model = str(self.out / "runs" / recipe / "model")
            [scores] = evaluate(
                model, data={"demo": self.out}, kb=self.out / "kb", out=self.out / "runs" / recipe
            )
            self.results["models"][recipe] = {name: scores.metrics[name] for name in METRICS}

    def _index(self) -> None:
        """Indexes the labelled images, and calibrates the tagger on the test images."""
        model, vectors = self.out / "runs" / "multitask" / "model", self.out / "emb.parquet"
        embed(str(model), self.out / "i2e" / "select" / "joint", out=vectors)
        make_map(Index.build(vectors, self.out / "index"))
        calibrate(Tagger(model, self.out / "kb"), self.out).write(model / TAG_CALIBRATION)

    def _report(self) -> None:
        inspect(self.out / "i2e", name="joint", out=self.out / "labels.html")
        write_report(self.out, self.results)

    # ---- notes of finished stages -----------------------------------------------------------

    def _open_notes(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self._notes = self.out / "stages.json"
        if not self._notes.is_file():
            return
        before = json.loads(self._notes.read_text())
        for key in ("seed", "size"):
            if before[key] != self.results[key]:
                raise MismatchError(
                    f"{str(self.out)!r} holds a demo with {key} {before[key]}, not "
                    f"{self.results[key]}; choose another --out."
                )
        self.results = before

    def _stage(self, name: str, work: Callable[[], None]) -> None:
        key = name.replace(" ", "_")
        if key in self.results["seconds"]:
            return
        started = time.monotonic()
        work()
        seconds = round(time.monotonic() - started, 1)
        self.results["seconds"][key] = seconds
        _write_json(self._notes, self.results)
        if name == "report":
            _write_json(self.out / "results.json", self.results)


@dataclass(frozen=True)
class _Truth:
    """What the training images really show, and which captions name it."""

    shown: dict[str, str]
    nameable: set[tuple[str, str]]
    """(key, id) of images whose caption names the entity that is shown."""

    @staticmethod
    def read(path: Path) -> _Truth:
        rows = pq.read_table(path, filters=[("split", "=", "train")]).to_pylist()
        shown = {row["key"]: row["shown"] for row in rows}
        named = {(row["key"], row["shown"]) for row in rows if row["shown"] in row["mentioned"]}
        return _Truth(shown, named)

    def score(self, labels: set[tuple[str, str]]) -> dict[str, float]:
        return label_scores(labels, set(self.shown.items()), self.nameable)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replace_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
