"""Does a search say «nothing here» when what was asked for is not there, and only then?

    pip install 'openmofi[real]' && apt install wordnet-base
    python examples/package_encoders.py ENCODERS
    python benchmarks/search_says_no.py demo DEMO --out OUT [--seeds 0 1 2]
    python benchmarks/search_says_no.py caltech101 PHOTOS --encoders ENCODERS --out OUT
    python benchmarks/search_says_no.py speed --rows 100000 --out OUT
    python benchmarks/search_says_no.py plot OUT/demo.json OUT/caltech101.json --out FIGURE.svg

demo: of a finished demo world (`openmofi demo`), all images of 20 entities are taken out.
caltech101: EfficientNet-Lite0 and MiniLM, paired on a third of the photos with the captions of
real_world.py; 25 classes are taken out, and a quarter of the other photos is held out to ask with.

The rest is indexed with its labels and calibrated by `openmofi index calibrate`, which has seen no
image of the classes that were taken out. Then all classes are asked for: by name, by name and
description, by id, and by held-out photos. Prints JSON, and writes OUT/NAME.json: by kind of query
and asked rate, the share of the queries for absent classes that was answered with nothing; the
share of those for present ones that had one of their images among the first 10, and how much of
that is lost, for they were answered with nothing. `unavoidable` is what the best threshold would
lose, chosen in hindsight so that 95% of the absent get nothing. One CPU-minute; the photos take
four more. speed: CPU-seconds of `calibrate` on made-up vectors of 256 around 2,000 entities.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from real_world import SENSES, shared_vectors, write_listing
from second_look import captioned

from openmofi import schema
from openmofi.config import EmbedSettings, PresenceSettings
from openmofi.embed import embed
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.model import load_model
from openmofi.search import Index, Searcher, Term
from openmofi.search.calibrate import calibrate
from openmofi.search.presence import BROAD
from openmofi.train.pair import pair

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
FIRST = 10
PAIRED_SEED = 1
"""The photos that the encoder is made of are the same for every choice of classes."""


@dataclass(frozen=True)
class Photos:
    """Images with what they show, an encoder of theirs, and names."""

    table: pa.Table
    """Output of `embed`, with `entities`; of the images that may be indexed."""
    shown: np.ndarray
    """What each of them shows in truth."""
    asked: np.ndarray
    """Unit vectors of images to ask with."""
    asked_shown: np.ndarray
    model: Path
    kb: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["demo", "caltech101", "speed", "plot"])
    parser.add_argument("sources", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--encoders", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.what == "plot":
        plot(arguments.sources, arguments.out)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.what == "speed":
        speed(arguments.rows, arguments.out)
        return
    if arguments.what == "demo":
        draw, num_out = demo_photos(arguments.sources[0], arguments.out), 20
    else:
        draw, num_out = caltech_photos(arguments), 25
    seeds = [measure(draw(seed), seed, num_out, arguments.out) for seed in arguments.seeds]
    text = json.dumps({"seeds": seeds, "mean": mean(seeds)}, indent=1)
    (arguments.out / f"{arguments.what}.json").write_text(text)
    print(text)


# ---------------------------------------------------------------- what is indexed and asked


def demo_photos(demo: Path, out: Path) -> Callable[[int], Photos]:
    """Returns the photos of a world; those of its test are asked with."""
    model, shown = demo / "runs/multitask/model", pq.read_table(demo / "truth.parquet")
    truth = dict(zip(shown["key"].to_pylist(), shown["shown"].to_pylist(), strict=True))
    test = embedded(model, demo / "test", out / "test.parquet")
    table = pq.read_table(demo / "emb.parquet")
    show = lambda table: np.array([truth[key] for key in table["id"].to_pylist()])  # noqa: E731
    photos = Photos(table, show(table), vectors_of(test), show(test), model, demo / "kb")
    return lambda _: photos


def caltech_photos(arguments: argparse.Namespace) -> Callable[[int], Photos]:
    """Returns a function that holds out a quarter of the photos."""
    out, kb = arguments.out, arguments.out / "wordnet"
    if not kb.is_dir():
        build_kb([arguments.wordnet], out=kb)
    parts = captioned(arguments.sources[0], PAIRED_SEED)
    for name, rows in parts.items():
        write_listing(out / f"{name}.csv", rows)
    paired = out / "pair"
    if not (paired / "model").is_dir():
        shared_vectors(paired, out / "vectors")
        encoders = arguments.encoders / "lite0", arguments.encoders / "minilm"
        pair(*encoders, data=out / "paired.csv", out=paired, device="cpu")
    table = embedded(paired / "model", out / "labelled.csv", out / "labelled.parquet")
    of = {row["file"].lstrip("/"): SENSES[row["class"]] for row in parts["labelled"]}
    shown = np.array([of[path.lstrip("/")] for path in table["path"].to_pylist()])
    at = table.column_names.index("entities")
    labels = pa.array([[one] for one in shown], pa.list_(pa.string()))
    table = table.set_column(at, table.schema.field("entities"), labels)
    vectors = vectors_of(table)

    def draw(seed: int) -> Photos:
        held = np.random.default_rng([seed, 1]).random(len(shown)) < 0.25
        kept = table.filter(pa.array(~held))
        return Photos(kept, shown[~held], vectors[held], shown[held], paired / "model", kb)

    return draw


def embedded(model: Path, source: Path, file: Path) -> pa.Table:
    if not file.is_file():
        embed(model, source, out=file, settings=EmbedSettings(device="cpu"))
    return pq.read_table(file)


def vectors_of(table: pa.Table) -> np.ndarray:
    found = np.array(table["vector"].to_pylist(), np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


# ---------------------------------------------------------------- what comes out


def measure(photos: Photos, seed: int, num_out: int, out: Path) -> dict[str, Any]:
    """Returns the figures of one choice of classes."""
    classes = np.unique(photos.asked_shown)
    gone = set(np.random.default_rng(seed).permutation(classes)[:num_out].tolist())
    labelled = [gone & set(ids or ()) for ids in photos.table["entities"].to_pylist()]
    keep = [
        one not in gone and not wrong for one, wrong in zip(photos.shown, labelled, strict=True)
    ]
    pq.write_table(photos.table.filter(pa.array(keep)), out / "indexed.parquet")
    Index.build(out / "indexed.parquet", out / "index", kb=photos.kb)
    model = load_model(photos.model, precision="auto")
    index = calibrate(Searcher(out / "index", model=model), PresenceSettings())
    searcher = Searcher(index, model=model)
    shown = dict(enumerate(photos.shown[np.array(keep)].tolist()))
    answers: dict[str, list[tuple[bool, bool, float, list[bool]]]] = defaultdict(list)
    for kind, entity, term in queries(photos, classes.tolist(), searcher.kb, gone):
        found = [searcher.search([term], k=FIRST, absent_rate=rate) for rate in RATES]
        hit = any(shown[hit.row] == entity for hit in found[0].hits)
        # A rate that is too small for the calibration is not kept: nobody can tell.
        said = [one.presence.found is False for one in found]
        answers[kind].append((entity in gone, hit, score_of(searcher, term), said))
    return {kind: figures(rows) for kind, rows in answers.items()}


def score_of(searcher: Searcher, term: Term) -> float:
    """Returns how present something looks, by the mean of the weights."""
    index = searcher.index
    if term.kind == "entity" and len(index.rows_of(str(term.value))):
        return float("inf")  # by its labels
    vector = searcher.vector([term])
    _, cosines, _ = index.nearest(vector, k=BROAD)
    assert index.calibration is not None
    null = index.calibration.nulls[term.of or "text"]
    return float(index.calibration.features(vector, cosines) @ null.weights.mean(0))


def queries(
    photos: Photos, classes: list[str], kb: KnowledgeBase | None, gone: set[str]
) -> Iterator[tuple[str, str, Term]]:
    """Yields (kind, class, query)."""
    assert kb is not None
    rows = kb.rows_of(classes)
    labels = [kb.texts.label[row].as_py() for row in rows]
    for entity, label, text in zip(classes, labels, kb.entity_text(rows), strict=True):
        namesakes = {e for e, other in zip(classes, labels, strict=True) if other == label}
        if len({e in gone for e in namesakes}) == 1:  # else the name is of both kinds
            yield "name", entity, Term("text", label)
        yield "text", entity, Term("text", text)
        yield "id", entity, Term("entity", entity)
    for entity, vector in zip(photos.asked_shown.tolist(), photos.asked, strict=True):
        yield "image", entity, Term("vector", vector, of="image")


def figures(rows: list[tuple[bool, bool, float, list[bool]]]) -> dict[str, Any]:
    gone, hits, scores = (np.array(column) for column in list(zip(*rows, strict=True))[:3])
    absent, present = (np.array([row[3] for row in rows])[which] for which in (gone, ~gone))
    hit = hits[~gone]
    found: dict[str, Any] = {"absent": len(absent), "present": len(present)}
    found["recall"] = round(float(hit.mean()), 4)
    hindsight = np.sort(scores[gone])[int(np.ceil(0.95 * gone.sum())) - 1]
    found["unavoidable"] = round(float((hit & (scores[~gone] <= hindsight)).mean()), 4)
    for i, rate in enumerate(RATES):
        nothing = round(float(absent[:, i].mean()), 4)
        lost = round(float((hit & present[:, i]).mean()), 4)
        found[f"{rate:g}"] = {"nothing": nothing, "recall_lost": lost}
    return found


def mean(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means of all numbers."""
    if not isinstance(seeds[0], dict):
        return round(float(np.mean(seeds)), 4)
    return {key: mean([seed[key] for seed in seeds]) for key in seeds[0]}


def speed(rows: int, out: Path) -> None:
    """Prints the CPU-seconds that a calibration for images takes."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((2_000, 256)).astype(np.float32)
    of = rng.integers(0, len(centres), rows)
    columns = {name: [""] * rows for name in ("shard", "path", "caption", "url")}
    columns |= {"id": [str(i) for i in range(rows)], "entities": [[f"e{one}"] for one in of]}
    columns |= {name: [None] * rows for name in ("label_scores", "text_area", "labels_row")}
    columns |= {"offset": list(range(rows)), "size": [0] * rows}
    noise = rng.standard_normal((rows, 256), np.float32)
    vectors = (centres[of] + noise).astype(np.float16).ravel()
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors), 256)
    known = schema.embeddings(256).with_metadata({"openmofi.root": "", "openmofi.model": ""})
    pq.write_table(pa.table(columns, schema=known), out / "speed.parquet")
    index = Index.build(out / "speed.parquet", out / "speed")
    began = time.process_time()
    calibrate(Searcher(index))
    print(json.dumps({"rows": rows, "cpu_seconds": round(time.process_time() - began, 1)}))


# ---------------------------------------------------------------- what it looks like


def plot(results: list[Path], out: Path) -> None:
    """Draws what is lost of present things against what is said of absent ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(5 * len(results), 3.6), squeeze=False)
    for axis, file in zip(axes[0], results, strict=True):
        found = json.loads(file.read_text())["mean"]
        for kind, by_rate in found.items():
            points = [by_rate[f"{rate:g}"] for rate in RATES if rate >= 0.05]
            nothing = [point["nothing"] for point in points]
            lost = [point["recall_lost"] for point in points]
            axis.plot(nothing, lost, "o-", label=kind)
        axis.axvline(0.95, color="tab:gray", ls=":")
        axis.axhline(0.05, color="tab:gray", ls=":")
        axis.set(title=file.stem, xlabel="absent: answered with nothing")
        axis.set(ylabel="present: recall lost", ylim=(-0.01, 0.35))
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
