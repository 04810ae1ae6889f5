"""The paper's table of recipes, on worlds of which the truth is known.

    python benchmarks/reproduction.py demo --out DIR --seeds 1 2 3
    python benchmarks/reproduction.py shop --out DIR --seeds 1 2 3 --shop PHOTOS

Trains every row of the tables on the demo's world (`openmofi demo`, full size), or on real shop
photos with made captions (see shop_labels.py): the rows of one table see the same number of
images and differ in labels, texts or losses alone. DIR/demo-SEED may be a finished demo; finished
rows are not trained again. `reproduction_tables.py` measures and draws what lies in DIR.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from shop_labels import open_shop, write_captions, write_catalogue
from shop_labels import settings as shop_settings

from openmofi.config import LabelSettings, SelectSettings, TrainSettings, override
from openmofi.demo.story import RECIPES, Story
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.select import select
from openmofi.train import train

ENTITY_TEXTS = ("name", "description")


@dataclass(frozen=True)
class Row:
    """One line of a table: what a model learns from, and how."""

    name: str
    title: str
    changes: dict[str, Any] = field(default_factory=dict)
    labels: str | None = "joint"
    """Selection that it learns from; None: raw captions."""
    classes: int | None = None
    """Entities that are left of the selection; None: all."""


def _loss(supervised: float, contrastive: float, *text: str) -> dict[str, Any]:
    loss = {"supervised": supervised, "contrastive": contrastive}
    return {"loss": loss | ({"text": text} if text else {})}


_CLIP = _loss(0, 1, "caption")
_CLIP["loss"]["mask_same_entity"] = False
_SUPERVISED = _loss(1, 0)
_MULTITASK = _loss(1, 1, *ENTITY_TEXTS)

RECIPE_ROWS = (
    Row("clip", "contrastive on captions (CLIP)", _CLIP, labels=None),
    Row("names", "contrastive on entity names", _loss(0, 1, "name")),
    Row("contrastive", "... names and descriptions", _loss(0, 1, *ENTITY_TEXTS)),
    Row("captions", "... captions, names and descriptions", _loss(0, 1, "caption", *ENTITY_TEXTS)),
    Row("supervised", "supervised on entities", _SUPERVISED),
    Row("multitask", "both (multi-task)", _MULTITASK),
)
LABEL_ROWS = (
    Row("caption-match", "multi-task, every name believed", _MULTITASK, "caption_match"),
    Row("no-filter", "multi-task, text decides, no image filter", _MULTITASK, "no_filter"),
    Row("text-first", "multi-task, text decides, image may refuse", _MULTITASK, "text_first"),
)
"""To be read beside the row multitask, in which text and image decide together."""
ABLATION_ROWS = (
    Row("half", "supervised: all entities, margin .15, no sampling", _SUPERVISED),
    Row("classes-49", "supervised: 49 of the entities", _SUPERVISED, classes=49),
    Row("classes-24", "supervised: 24 of the entities", _SUPERVISED, classes=24),
    Row(
        "sampled-32", "supervised: 32 sampled classes", _SUPERVISED | {"head": {"num_sampled": 32}}
    ),
    Row("sampled-8", "supervised: 8 sampled classes", _SUPERVISED | {"head": {"num_sampled": 8}}),
    Row("margin-0", "supervised: margin 0", _SUPERVISED | {"head": {"margin": 0.0}}),
    Row("margin-30", "supervised: margin .30", _SUPERVISED | {"head": {"margin": 0.3}}),
    Row("lambda-10", "multi-task: lambda .1", _loss(0.2, 1.8, *ENTITY_TEXTS)),
    Row("lambda-50", "multi-task: lambda .5", _MULTITASK),
    Row("lambda-90", "multi-task: lambda .9", _loss(1.8, 0.2, *ENTITY_TEXTS)),
)
"""Half the steps of the other tables."""


def main() -> None:
    """Trains what is not trained yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("material", choices=["demo", "shop"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--tables", nargs="+", default=["recipes", "labels", "ablations"])
    parser.add_argument("--rows", nargs="+", help="of the tables; the default is all")
    parser.add_argument("--shop", type=Path, help="photos with images.csv and entities.csv")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        folder = arguments.out / f"{arguments.material}-{seed}"
        if arguments.material == "demo":
            train_demo(folder, seed, arguments.tables, arguments.rows)
        else:
            train_shop(folder, seed, arguments.shop.resolve(), arguments.rows)


# ---- the demo's world ---------------------------------------------------------------------------


def train_demo(folder: Path, seed: int, tables: list[str], wanted: list[str] | None) -> None:
    """Runs the demo (its four recipes are rows of the first table), then trains the other rows."""
    story = Story(folder, "full", seed)
    story.run()
    base = replace(TrainSettings(), steps=story.size.steps, batch_size=story.size.batch_size)
    base = replace(base, seed=seed)
    if not (folder / "i2e/select/no_filter/card.json").is_file():
        never = SelectSettings(order="text-first", threshold=-1e6, min_images=story.size.min_images)
        select(folder / "i2e", name="no_filter", settings=never)
    steps = base.steps
    for table, rows, count in (
        ("recipes", RECIPE_ROWS, steps),
        ("labels", LABEL_ROWS, steps),
        ("ablations", ABLATION_ROWS, steps // 2),
    ):
        for row in rows if table in tables else ():
            if row.name not in RECIPES and (wanted is None or row.name in wanted):
                _train_row(folder, row, replace(base, steps=count), folder / "shards")


def _train_row(folder: Path, row: Row, base: TrainSettings, captions: Path) -> None:
    run = folder / "runs" / row.name
    data = captions if row.labels is None else folder / "i2e/select" / row.labels
    if row.classes is not None:
        data = _fewer_classes(data, row.classes)
    resume = (run / "config.yaml").is_file()
    train(override(base, row.changes), data=data, out=run, resume=resume)


def _fewer_classes(selection: Path, count: int) -> Path:
    """Returns a selection with the labels of some entities alone, the same for every seed."""
    fewer = selection.with_name(f"{selection.name}-{count}")
    if (fewer / "card.json").is_file():
        return fewer
    vocabulary = pq.read_table(selection / "vocabulary.parquet")
    kept = np.sort(np.random.default_rng(0).permutation(len(vocabulary))[:count])
    number = {int(old): new for new, old in enumerate(kept)}
    rows = []
    for row in pq.read_table(selection / "keep.parquet").to_pylist():
        classes = [number[c] for c in row["classes"] if c in number]
        if classes:
            rows.append(row | {"classes": classes})
    schema = pq.read_schema(selection / "keep.parquet")
    fewer.mkdir(parents=True, exist_ok=True)
    pq.write_table(vocabulary.take(pa.array(kept)), fewer / "vocabulary.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), fewer / "keep.parquet")
    (fewer / "card.json").write_text((selection / "card.json").read_text())
    return fewer


# ---- real shop photos ---------------------------------------------------------------------------


def train_shop(
    folder: Path, seed: int, shop: Path, wanted: list[str] | None, steps: int = 500
) -> None:
    """Writes captions for three quarters of the photos, labels these, and trains the recipes."""
    folder.mkdir(parents=True, exist_ok=True)
    base = shop_settings(steps, seed)
    base = override(base, {"loss": {"mask_same_entity": True}})
    _once(folder / "products.csv", lambda: _write_shop(folder, seed, shop))
    _once(folder / "kb/meta.json", lambda: build_kb(folder / "products.csv", out=folder / "kb"))
    for row in RECIPE_ROWS:
        if wanted is not None and row.name not in wanted:
            continue
        _train_row(folder, row, base, folder / "captions.csv")
        if row.labels is None:
            _label_shop(folder)


def _once(made: Path, work: Callable[[], Any]) -> None:
    if not made.exists():
        work()


def _write_shop(folder: Path, seed: int, shop: Path) -> None:
    entities, photos, rng = open_shop(shop, folder, seed)
    quarter = len(photos) // 4
    held_out = [(f"images/{p['file']}", p["class_id"]) for p in photos[:quarter]]
    learnt = [(f"images/{p['file']}", p["class_id"]) for p in photos[quarter:]]
    for name, rows in (("test.csv", held_out), ("train.csv", learnt)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "label"), *rows])
    truth = folder / "truth-of-captions.parquet"
    write_captions(folder / "captions.csv", photos[quarter:], entities, rng, truth)
    write_catalogue(folder / "products.csv", entities)


def _label_shop(folder: Path) -> None:
    label(
        folder / "captions.csv",
        kb=folder / "kb",
        model=folder / "runs/clip/model",
        out=folder / "i2e",
        settings=LabelSettings(workers=1),
    )
    if not (folder / "i2e/select/joint/card.json").is_file():
        settings = SelectSettings(false_label_rate=0.05, min_images=3)
        summary = select(folder / "i2e", name="joint", settings=settings)
        print(json.dumps({"selected": str(summary.out)}))


if __name__ == "__main__":
    main()
