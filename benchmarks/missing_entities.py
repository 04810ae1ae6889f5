"""Entities are hidden from the knowledge base: are they proposed again, and nothing else?

    python benchmarks/missing_entities.py demo --out OUT [--seeds 42 43]
    python benchmarks/missing_entities.py caltech101 --photos PHOTOS --encoders ENCODERS --out OUT

demo: worlds of all 98 entities; the `clip` encoder is trained on the world's own captions, which
needs no knowledge base. Then 20 entities, drawn by the seed, are taken out of the dump and the
catalogue, and their names out of the knowledge base. The world is labelled and selected by what is
left. With --senses, names stay that other entities bear, too: Delta is still a river's, and where
the encoder takes the flag for the river, its images are kept and nothing is missing.
caltech101: real photos with captions as of real_world.py, one in seven wrong; EfficientNet-Lite0
and MiniLM are paired on a third of the photos (of all classes), the others are labelled. 20 of the
classes' senses are hidden from WordNet, with all their names (or, with --senses, but for those
that other senses bear, too: a crab is also a person).

A hidden entity is found again if most images of a proposal show it and the proposal bears one of
its names. Prints JSON and writes OUT/NAME.json: how many of 20 are found again, the purity of the
proposals that found them (the share of their images that show the entity; the least and the mean),
and how many of the first 10, 20 and 30 proposals, and of all, are of hidden entities; then the
proposals themselves. One thread. An interrupted run goes on; about 8 CPU-minutes a world.
"""

import argparse
import gzip
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from calibrated_rate import read_truth
from real_world import SENSES, shared_vectors, write_listing
from second_look import captioned

from openmofi.config import KBSettings, LabelSettings, MissingSettings, SelectSettings
from openmofi.demo.world import draw_world
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.text import canonical
from openmofi.label import label
from openmofi.review.missing import find_missing
from openmofi.select import select
from openmofi.train import train
from openmofi.train.pair import pair
from openmofi.train.recipe import read_recipe

HIDDEN = 20


@dataclass(frozen=True)
class Hidden:
    """Labels by a knowledge base that lacks some entities, and what is true."""

    i2e: Path
    model: str
    shown: dict[str, str]
    """What each image shows, by key."""
    names: dict[str, set[str]]
    """Canonical names of each hidden entity."""
    labels: dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["demo", "caltech101"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--encoders", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43])
    parser.add_argument("--hide", nargs="+", type=int, default=[0], help="seeds of what is hidden")
    parser.add_argument("--senses", action="store_true", help="keep other senses of the names")
    parser.add_argument("--rate", type=float, default=0.05)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    hide = hide_in_demo if arguments.what == "demo" else hide_in_wordnet
    found = {}
    for seed in arguments.seeds:
        for draw in arguments.hide:
            begun = time.process_time()
            hidden = hide(arguments, seed, draw)
            labelled = time.process_time()
            settings = SelectSettings(false_label_rate=arguments.rate)
            summary = select(hidden.i2e, settings=settings)
            out = hidden.i2e.with_name("missing")
            proposed = time.process_time()
            find_missing(
                hidden.i2e, model=hidden.model, out=out, settings=MissingSettings(workers=1)
            )
            figures = judge(hidden, out)
            figures["cpu_seconds"] = {
                "prepare": round(labelled - begun),
                "propose": round(time.process_time() - proposed, 1),
            }
            figures["kept"] = pq.ParquetFile(summary.out / "keep.parquet").metadata.num_rows
            found[f"{seed}, hidden by {draw}"] = figures
    name = f"{arguments.what}{'-senses' * arguments.senses}"
    (arguments.out / f"{name}.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


def judge(hidden: Hidden, out: Path) -> dict[str, Any]:
    """Returns how well the proposals fit what was hidden."""
    members = pq.read_table(out / "members.parquet").to_pylist()
    shown: dict[str, list[str]] = {}
    for row in members:
        shown.setdefault(row["proposal"], []).append(hidden.shown.get(row["key"], "?"))
    rows, again = [], {}
    for one in json.loads((out / "proposals.json").read_text()):
        entity, count = Counter(shown[one["id"]]).most_common(1)[0]
        purity = count / len(shown[one["id"]])
        named = {canonical(name) for name in (one["name"], *one["aliases"])}
        right = purity > 0.5 and bool(named & hidden.names.get(entity, set()))
        if right:
            again.setdefault(entity, []).append(purity)
        rows.append(
            {
                "name": one["name"],
                "aliases": one["aliases"],
                "shows": entity,
                "right": right,
                "hidden": entity in hidden.names,
                "purity": round(purity, 3),
                **{n: one[n] for n in ("images", "looked", "share", "value", "evidence")},
                "nearest": [(n["label"], n["cosine"], n["apart"]) for n in one["nearest"]],
            }
        )
    best = [max(purities) for purities in again.values()]
    right = [row["right"] for row in rows]
    return {
        "found_again": len(again),
        "of": len(hidden.names),
        "purity": round(float(np.mean(best)), 4) if best else None,
        "least_purity": round(min(best), 4) if best else None,
        "first": {str(k): sum(right[:k]) for k in (10, 20, 30)} | {"all": sum(right)},
        "proposals": len(rows),
        "lost": sorted(hidden.labels[e] for e in hidden.names.keys() - again.keys()),
        "rows": rows,
    }


# ---------------------------------------------------------------- the demo


def hide_in_demo(arguments: argparse.Namespace, seed: int, draw: int) -> Hidden:
    world = arguments.out / f"world-{seed}"
    if not (world / "truth.parquet").is_file():
        draw_world(world, size="full", seed=seed)
    model = world / "runs" / "clip" / "model"
    if not model.is_dir():
        train_clip(world, seed)
    shown, _ = read_truth(world / "truth.parquet")
    out = arguments.out / f"demo-{seed}-{draw}{'-senses' * arguments.senses}"
    out.mkdir(exist_ok=True)
    drawn = set(random.Random(draw).sample(sorted(set(shown.values())), HIDDEN))
    whole = out / "whole"
    if not whole.is_dir():
        build_kb([world / "dump.json.gz", world / "signals.csv"], out=whole)
    kb, base = out / "kb", KnowledgeBase.open(whole)
    if not kb.is_dir():
        with (
            gzip.open(world / "dump.json.gz", "rt") as lines,
            gzip.open(out / "dump.json.gz", "wt") as left,
        ):
            left.writelines(line for line in lines if not _is_of(line, drawn))
        lines = (world / "signals.csv").read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.split(",")[0] not in drawn]
        (out / "signals.csv").write_text("".join(kept))
        sources = [out / "dump.json.gz", out / "signals.csv"]
        build_kb(sources, out=kb, settings=settings_without(base, drawn, arguments, out))
    assert all(KnowledgeBase.open(kb).row_of(entity) is None for entity in drawn)
    i2e = out / "i2e"
    label(
        world / "shards",
        kb=kb,
        model=str(model),
        out=i2e,
        settings=LabelSettings(workers=1, background=512),
    )
    return Hidden(i2e, str(model), shown, *names_of(base, drawn))


def _is_of(line: str, entities: set[str]) -> bool:
    text = line.strip().rstrip(",")
    return text.startswith("{") and json.loads(text)["id"] in entities


def train_clip(world: Path, seed: int) -> None:
    with as_file(files("openmofi.demo") / "recipes" / "clip.yaml") as path:
        recipe = read_recipe(path)
    model = replace(recipe.model, image_size=64)
    given = {"steps": 700, "batch_size": 128, "seed": seed}
    settings = replace(recipe, model=model, device="cpu", threads=1, **given)
    run = world / "runs" / "clip"
    train(settings, data=world / "shards", out=run, resume=(run / "config.yaml").is_file())


def settings_without(
    base: KnowledgeBase, hidden: set[str], arguments: argparse.Namespace, out: Path
) -> KBSettings:
    """Returns settings that take the hidden entities' names out of the knowledge base."""
    if arguments.senses:
        return KBSettings()
    names = {name for own in names_of(base, hidden)[0].values() for name in own}
    file = out / "without.tsv"
    file.write_text("".join(f"{name}\t-\t0\n" for name in sorted(names)))
    return KBSettings(overrides=str(file))


def names_of(base: KnowledgeBase, ids: set[str]) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Returns the canonical names of entities, and their labels."""
    rows = {base.row_of(one): one for one in ids}
    table = pq.read_table(base.path / "names.parquet", columns=["key", "entity"])
    names: dict[str, set[str]] = {one: set() for one in ids}
    for key, entity in zip(*(c.to_pylist() for c in table.columns), strict=True):
        if entity in rows:
            names[rows[entity]].add(key)
    return names, {one: base.show(one).label for one in ids}


# ---------------------------------------------------------------- real photos


def hide_in_wordnet(arguments: argparse.Namespace, seed: int, draw: int) -> Hidden:
    photos = arguments.out / f"photos-{seed}"
    photos.mkdir(exist_ok=True)
    parts = captioned(arguments.photos, seed)
    for name, rows in parts.items():
        write_listing(photos / f"{name}.csv", rows)
    paired = photos / "lite0"
    if not (paired / "model").is_dir():
        shared_vectors(paired, arguments.out / "vectors")
        encoders = arguments.encoders / "lite0", arguments.encoders / "minilm"
        pair(*encoders, data=photos / "paired.csv", out=paired, device="cpu")
    whole = arguments.out / "wordnet"
    if not whole.is_dir():
        build_kb([arguments.wordnet], out=whole)
    base = KnowledgeBase.open(whole)
    out = arguments.out / f"caltech101-{seed}-{draw}{'-senses' * arguments.senses}"
    out.mkdir(exist_ok=True)
    drawn = {SENSES[c] for c in random.Random(draw).sample(sorted(SENSES), HIDDEN)}
    kb = out / "kb"
    if not kb.is_dir():
        pq.write_table(without(base, drawn), out / "catalogue.parquet")
        settings = settings_without(base, drawn, arguments, out)
        build_kb([out / "catalogue.parquet"], out=kb, settings=settings)
    i2e = out / "i2e"
    settings = LabelSettings(workers=1, background=200)
    model = str(paired / "model")
    label(photos / "labelled.csv", kb=kb, model=model, out=i2e, settings=settings)
    shown = {row["file"]: SENSES[row["class"]] for row in parts["labelled"]}
    return Hidden(i2e, model, shown, *names_of(base, drawn))


def without(base: KnowledgeBase, hidden: set[str]) -> pa.Table:
    """Returns a knowledge base as a catalogue, without some entities."""
    entities = base.entities(["id", "label", "description", "types", "prior"]).to_pylist()
    names: list[list[str]] = [[] for _ in entities]
    table = pq.read_table(base.path / "names.parquet", columns=["raw", "entity"])
    for raw, entity in zip(*(c.to_pylist() for c in table.columns), strict=True):
        names[entity].append(raw)
    rows = [
        {
            "id": row["id"],
            "name": row["label"],
            "aliases": names[number],
            "description": row["description"],
            "weight": row["prior"],
            "type": row["types"],
        }
        for number, row in enumerate(entities)
        if row["id"] not in hidden
    ]
    return pa.Table.from_pylist(rows)


if __name__ == "__main__":
    main()
