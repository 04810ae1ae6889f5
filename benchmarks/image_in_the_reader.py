"""Does a reader of hard mentions need to see the image, or is adding up what both say enough?

    python benchmarks/image_in_the_reader.py DEMO --model MODEL --encoder TEXT_ENCODER --out FOLDER

DEMO is the output of `openmofi demo`, on which is reported. Worlds of other seeds (--learn) are
drawn to learn from; all photos are compared by MODEL, which should have learnt none of their
captions, such as runs/clip/model of a demo with another seed. Two readers start from TEXT_ENCODER:
one learns what these other captions mean, the other what their images tell (docs/linking.md).

For captions without a reader and with either: the share of the mentions that name something whose
best candidate is named, by kind of caption and by whether it is shown; chosen by the text, by the
joint score (what is shown), or by what is meant, given text and image
(evaluate/linking_images.py). Also precision, recall and F1 of labels. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from calibrated_rate import read_truth
from fusion_labels import label_figures
from linking_weights import demo_examples

from openmofi.config import FusionSettings, LabelSettings, override, parse_assignments
from openmofi.demo.captions import Caption
from openmofi.demo.world import draw_world
from openmofi.evaluate.linking_images import meant_by_images, texts_of_images
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.label.score import best_of_each, joint_score
from openmofi.link import Linker, WordEncoder
from openmofi.select.blocks import label_blocks
from openmofi.select.choose import ScoredCandidates, read_mentions
from openmofi.select.learn import weigh
from openmofi.select.sample import sample_mentions
from openmofi.shards import committed_files
from openmofi.train.fusion import fit_fusion, train_reader
from openmofi.train.fusion_examples import examples_of_group


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--learn", type=int, nargs="+", default=[0, 3], help="seeds of worlds")
    parser.add_argument("--read-above", type=float, default=LabelSettings().read_above)
    parser.add_argument("--set", nargs="+", default=[], dest="changes")
    arguments = parser.parse_args()
    demo, out = arguments.demo, arguments.out
    sources = [demo / "dump.json.gz", demo / "signals.csv"]
    kb = KnowledgeBase.open(build_kb(sources, out=out / "kb").out)
    settings = override(FusionSettings(), parse_assignments(arguments.changes))
    readers: dict[str, Path | None] = {"no reader": None}
    readers |= train_readers(kb, arguments, settings)
    truth = {row["key"]: row for row in pq.read_table(demo / "truth.parquet").to_pylist()}
    shown, named = read_truth(demo / "truth.parquet")
    result: dict[str, Any] = {}
    for name, reader in readers.items():
        i2e = out / "labels" / (reader.name if reader else "linear")
        chosen = LabelSettings(
            workers=1, fusion=str(reader) if reader else None, read_above=arguments.read_above
        )
        label(demo / "shards", kb=kb.path, model=arguments.model, out=i2e, settings=chosen)
        result[name] = shares(i2e, truth) | {"labels": label_figures(i2e, shown, named)}
    print(json.dumps(result, indent=1))


def train_readers(
    kb: KnowledgeBase, arguments: argparse.Namespace, settings: FusionSettings
) -> dict[str, Path]:
    """Returns a reader that learnt what captions of other worlds mean, and one taught by images.

    Those that a run before this one trained are taken as they are.
    """
    out, linker = arguments.out, Linker(kb, encoder=WordEncoder(kb))
    told, taught = out / "reader-told", out / "reader-taught-by-images"
    worlds = [out / f"world-{seed}" for seed in arguments.learn]
    for world, seed in zip(worlds, arguments.learn, strict=True):
        if not world.is_dir():
            draw_world(world, size="short", seed=seed)
    others = {"encoder": arguments.encoder, "settings": settings, "device": "cpu"}
    if not told.is_dir():
        captions = [caption for world in worlds for caption in captions_in(world)]
        texts = [caption.text for caption in captions]
        examples = examples_of_group(linker, demo_examples(linker, captions), texts)
        described = {"data": ["demo captions"]}
        train_reader(examples, linker.weights, described=described, out=told, **others)
    if not taught.is_dir():
        data = []
        for world in worlds:
            i2e, chosen = out / "labels" / world.name, LabelSettings(workers=1)
            label(world / "shards", kb=kb.path, model=arguments.model, out=i2e, settings=chosen)
            data.append(texts_of_images(i2e))
        fit_fusion(linker, data, out=taught, **others)
    return {"reader, told what captions mean": told, "reader, taught by images": taught}


def captions_in(world: Path) -> list[Caption]:
    """Returns the captions of a world's training photos."""
    rows = pq.read_table(world / "truth.parquet").to_pylist()
    truth = {row["key"]: row for row in rows if row["split"] == "train"}
    tables = [pq.read_table(file) for file in sorted((world / "shards").glob("*.parquet"))]
    texts = pa.concat_tables(tables).select(["key", "caption"]).to_pylist()
    return [
        Caption(one["caption"], own["caption_kind"], tuple(own["mentioned"]))
        for one in texts
        for own in [truth[one["key"]]]
    ]


def shares(i2e: Path, truth: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the shares of the mentions that are understood; see the module.

    Args:
        i2e: output of `label`.
        truth: rows of the demo's truth.parquet by key.
    """
    files = committed_files(i2e)
    weighing = weigh(sample_mentions(label_blocks(files), "joint"))
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        found = read_mentions(file, "joint")
        assert found.ids is not None
        ids = found.ids.to_pylist()
        keys = pq.read_table(file, columns=["key"])["key"].to_pylist()
        own = [truth[keys[row]] for row in found.row.tolist()]
        named = np.array([i in t["mentioned"] for i, t in zip(ids, own, strict=True)])
        shown = named & np.array([i == t["shown"] for i, t in zip(ids, own, strict=True)])
        choices = {
            "text": found.text,
            "joint": joint_score(found.text, found.clip_z, found.item, weighing.weights),
            "meant": meant_by_images(found, weighing.weights),
        }
        parts = parts_of(found, own, named, shown)
        for how, values in choices.items():
            hit = named[best_of_each(values, found.begins)]
            for part, which in parts.items():
                right[how][part] += hit[which].tolist()
    figures: dict[str, Any] = {
        how: {part: round(float(np.mean(hits)), 4) for part, hits in sorted(parts.items())}
        for how, parts in right.items()
    }
    counts = {part: len(hits) for part, hits in sorted(right["text"].items())}
    weights = {name: round(value, 3) for name, value in vars(weighing.weights).items()}
    return {"weights": weights, "mentions": counts, **figures}


def parts_of(
    found: ScoredCandidates,
    truth: list[dict[str, Any]],
    named: np.ndarray,
    shown: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns mentions by kind of caption; those that name nothing are left out.

    Args:
        found: all candidates of a file of labels.
        truth: of the pair of each candidate.
        named: which candidates their captions name.
        shown: which of these are shown, too.
    """
    begins = found.begins
    names, shows = (np.logical_or.reduceat(which, begins) for which in (named, shown))
    kinds = np.array([truth[at]["caption_kind"] for at in begins.tolist()])
    parts = {"all": names, "shown": shows, "not shown": names & ~shows}
    for kind in np.unique(kinds[names]).tolist():
        parts |= {kind: names & (kinds == kind), f"{kind}, shown": shows & (kinds == kind)}
    return {name: np.flatnonzero(which) for name, which in parts.items() if which.any()}


if __name__ == "__main__":
    main()
