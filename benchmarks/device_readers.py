"""Are labels of real photos better where a reader of hard mentions has read their titles?

    python benchmarks/device_readers.py --photos ../shared/data/real/devices/devices.csv \
        --encoders encoders --brands brands.csv --out OUT [--seeds 0 1] [--readers NAME=READER ...]

The devices of real_world.py, halved as there: an encoder paired on half of the products labels the
other half, among brands and WordNet's nouns. Each way labels once, the readers with everything
above .1 read:

    words               no reader
    words + priors      with what the titles of the labelled half teach (kb count --priors), which
                        is also selected with --priors images
    words + crawl       a reader that learnt from the first way's labels what the images tell
    words + other half  a reader that learnt so from the paired half, labelled by an encoder that
                        was paired on this one
    words + priors + crawl, MiniLM, MiniLM + crawl      as the names say
    words + NAME        a reader of --readers, such as one of fusion_reading.py

Nothing learns from a truth. Judged are the names of MEANT below, by what they mean in such titles:
a label is right if it is the sense that is meant, and the product is of a category that shows it.
The result also says what share of all judged labels is of another sense, and how many vendors are
right, as in real_world.py. Interrupted, the same command goes on. One thread. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from crawl_priors import learn
from real_world import (
    VendorTitles,
    divide_devices,
    kept_labels,
    mean,
    shared_vectors,
)

from openmofi.cli.link import open_linker
from openmofi.config import (
    FusionSettings,
    LabelSettings,
    SelectSettings,
    override,
    parse_assignments,
)
from openmofi.evaluate.linking_images import texts_of_images
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.select import select
from openmofi.train.fusion import fit_fusion
from openmofi.train.pair import pair

ANY = {"bulb", "cover", "coordinator", "dimmer", "hvac", "light", "lock", "misc", "other", "plug"}
ANY |= {"remote", "router", "sensor", "socket", "switch"}
LIT, SWITCHED = {"light", "bulb"}, {"switch", "remote", "dimmer", "cover"}
SHOWN = {
    "bulb": ({"n03665924"}, LIT),
    "button": ({"n04027023"}, {"remote", "switch"}),
    "control": ({"n03096960"}, ANY),
    "controller": ({"n03096960"}, ANY),
    "detector": ({"n03180969"}, {"sensor"}),
    "filament": ({"n03336575"}, {"bulb"}),
    "globe": ({"n13899404"}, {"bulb"}),
    "lamp": ({"n03636248", "n03636649"}, LIT),
    "light": ({"n03665366"}, LIT),
    "lock": ({"n03682487"}, {"lock"}),
    "module": ({"n03778600", "n03778817"}, ANY),
    "motor": ({"n03789946"}, {"cover"}),
    "outlet": ({"n04548771"}, {"plug", "switch"}),
    "panel": ({"n03882058"}, {"light", "hvac"}),
    "pendant": ({"n03005285"}, {"light"}),
    "plug": ({"n03968293"}, {"plug"}),
    "relay": ({"n04072960"}, {*SWITCHED, "light", "hvac"}),
    "router": ({"n04114844"}, {"router"}),
    "siren": ({"n04224395"}, {"sensor", "other", "misc"}),
    "socket": ({"n04255034"}, {"plug", "switch", "socket"}),
    "spot": ({"n04286575"}, LIT),
    "spotlight": ({"n04286575"}, LIT),
    "strip": ({"n04339291", "n09449510"}, {"light"}),
    "switch": ({"n04372370"}, SWITCHED),
    "valve": ({"n04519153"}, {"hvac", "misc"}),
}
"""Ambiguous name -> the WordNet sense that titles of smart devices mean by it, and the categories
whose products show it. Chosen by eye from the names of fourteen titles or more, before any label
was looked at; names whose sense is doubtful are left out."""
BESIDE = {
    "ac": {"n11423952"},
    "air": {"n14841267"},
    "bathroom": {"n02807731"},
    "curtain": {"n03151077"},
    "door": {"n03221720", "n03224032"},
    "gas": {"n14877585", "n14960090"},
    "power": {"n11453016"},
    "presence": {"n08642632"},
    "radiator": {"n04041069"},
    "shutter": {"n04211356"},
    "smoke": {"n11508092"},
    "wall": {"n04546855"},
    "water": {"n14845743"},
    "window": {"n04587648"},
}
"""Names of what the device is for or hangs on, and what they mean; the photos do not show it."""
NOTHING = (
    "au", "aurora", "black", "channel", "classic", "double", "driver", "hive", "iris", "lumen",
    "mercator", "mini", "müller", "rf", "rocker", "rotary", "scene", "shin", "smart", "spectrum",
    "sr", "type", "white", "wireless", "yale",
)  # fmt: skip
"""Names that mean none of their entities in such titles: colours, adjectives, parts of numbers,
vendors that the knowledge base does not have."""
MEANT = {name: ids for name, (ids, _) in SHOWN.items()} | BESIDE | {n: set() for n in NOTHING}
RATES = (0.01, 0.05, 0.2)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--encoders", type=Path, required=True)
    parser.add_argument("--brands", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--readers", nargs="+", default=[], metavar="NAME=READER")
    parser.add_argument("--ways", nargs="+", help="some of the ways; default: all")
    parser.add_argument("--set", nargs="+", default=[], dest="changes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    kb = arguments.out / "brands-and-words"
    if not kb.is_dir():
        build_kb([arguments.wordnet, arguments.brands], out=kb)
    seeds = {seed: Devices.of(arguments, kb, seed).run() for seed in arguments.seeds}
    print(json.dumps({"seeds": seeds, "mean": mean(list(seeds.values()))}, indent=1))


@dataclass(frozen=True)
class Devices:
    """One way to halve the products, and the folder with what came of it."""

    out: Path
    parts: dict[str, list[dict[str, str]]]
    kb: KnowledgeBase
    arguments: argparse.Namespace

    @classmethod
    def of(cls, arguments: argparse.Namespace, kb: Path, seed: int) -> Devices:
        """Halves the products."""
        out = arguments.out / f"devices-seed-{seed}"
        parts = divide_devices(arguments.photos, seed, out)
        return cls(out, parts, KnowledgeBase.open(kb), arguments)

    def run(self) -> dict[str, Any]:
        """Returns the figures of every way."""
        minilm = str(self.arguments.encoders / "minilm")
        crawl, priors = (lambda: self.reader("words", "words")), self.priors
        ways: dict[str, dict[str, Any]] = {
            "words": {},
            "words + crawl": {"fusion": crawl},
            "words + priors": {"priors": priors},
            "words + priors + crawl": {"priors": priors, "fusion": crawl},
            "MiniLM": {"context": minilm},
            "MiniLM + crawl": {"context": minilm, "fusion": lambda: self.reader("MiniLM", minilm)},
            "words + other half": {"fusion": self.other_reader},
        }
        for given in self.arguments.readers:
            name, _, folder = given.partition("=")
            ways[f"words + {name}"] = {"fusion": folder}
        chosen = self.arguments.ways or list(ways)
        return {name: self.figures(name, ways[name]) for name in chosen}

    def figures(self, way: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Labels in one way, and returns the figures by order and asked rate."""
        file = self.folder(way).with_suffix(".json")
        if not file.is_file():
            started = time.process_time()
            made = {name: str(v() if callable(v) else v) for name, v in changes.items()}
            i2e = self.label(way, "paired", "labelled", made)
            rows, titles = self.parts["labelled"], Titles.read(i2e, self.parts["labelled"])
            found: dict[str, Any] = {
                "cpu_seconds": round(time.process_time() - started),
                "names, by the text": titles.linked,
            }
            vendors = VendorTitles.read(i2e, rows, self.kb)
            orders = {"text first": ("text-first", "labels"), "joint": ("joint", "labels")}
            if "priors" in changes:
                orders["joint, priors of images"] = ("joint", "images")
            for name, (order, learnt) in orders.items():
                for rate in RATES:
                    chosen = SelectSettings(
                        order=order, priors=learnt, min_images=1, false_label_rate=rate
                    )
                    selection = select(i2e, name=f"{order}-{learnt}-{rate}", settings=chosen)
                    kept = kept_labels(selection.out)
                    judged = {"names": titles.figures(kept), "vendors": vendors.figures(kept)}
                    found[f"{name} {rate:g}"] = judged
            file.write_text(json.dumps(found, indent=1))
        return json.loads(file.read_text())

    def label(self, way: str, paired: str, part: str, changes: dict[str, str]) -> Path:
        """Labels a part in one way, with the encoder that was paired on the other."""
        model = self.out / f"pair-{paired}"
        shared_vectors(model, self.arguments.out / "vectors")
        encoders = (self.arguments.encoders / "lite0", self.arguments.encoders / "minilm")
        if not (model / "model").is_dir():
            pair(*encoders, data=self.out / f"{paired}.csv", out=model, device="cpu")
        i2e, settings = self.folder(way), LabelSettings(workers=1, **changes)
        listing = self.out / f"{part}.csv"
        label(listing, kb=self.kb.path, model=str(model / "model"), out=i2e, settings=settings)
        return i2e

    def reader(self, way: str, context: str) -> Path:
        """Returns a reader that learnt from what a way labelled."""
        out = self.folder(way).with_name(f"reader-{self.folder(way).name}")
        if not out.is_dir():
            linker = open_linker(self.kb, context)
            settings = override(FusionSettings(), parse_assignments(self.arguments.changes))
            fit_fusion(
                linker,
                [texts_of_images(self.folder(way))],
                encoder=self.arguments.encoders / "minilm",
                out=out,
                settings=settings,
                device="cpu",
            )
        return out

    def other_reader(self) -> Path:
        """Returns a reader that learnt from the half that is not labelled otherwise."""
        self.label("paired half", "labelled", "paired", {})
        return self.reader("paired half", "words")

    def priors(self) -> Path:
        """Returns the file with what the titles of the labelled half teach."""
        file = self.out / "priors"
        if not file.is_file():
            learnt, _ = learn(self.kb, [row["caption"] for row in self.parts["labelled"]])
            learnt.save(file)
        return file

    def folder(self, way: str) -> Path:
        """Returns where the labels of a way lie."""
        return self.out / way.replace(" + ", "-").replace(" ", "-")


@dataclass(frozen=True)
class Titles:
    """What the judged names of titles mean, and what is shown."""

    meant: dict[tuple[str, str], bool]
    """(file, id) of every candidate of a judged name -> whether the title means it."""
    shown: dict[tuple[str, str], tuple[str, str]]
    """Those that are meant and shown -> (file, name)."""
    linked: dict[str, float]
    """Share of the judged names whose most probable candidate, by the text, is meant."""

    @classmethod
    def read(cls, labels: Path, rows: list[dict[str, str]]) -> Titles:
        """Takes the names from the output of `label`."""
        category = {row["file"]: row["category"] for row in rows}
        meant: dict[tuple[str, str], bool] = {}
        shown: dict[tuple[str, str], tuple[str, str]] = {}
        right_at: dict[str, list[bool]] = {"of what is shown": [], "of other things": []}
        for file in (labels / "labels").glob("*.parquet"):
            for row in pq.read_table(file, columns=["path", "entities"]).to_pylist():
                path, best = "/" + row["path"].lstrip("/"), {}
                for one in row["entities"]:
                    name, place = one["surface"].casefold(), (path, one["id"])
                    if name not in MEANT:
                        continue
                    best.setdefault(one["start"], []).append((one["text_score"], one["id"], name))
                    right = one["id"] in MEANT[name]
                    meant[place] = right or meant.get(place, False)
                    if right and category[path] in SHOWN.get(name, ((), ()))[1]:
                        shown[place] = path, name
                for _, id_, name in map(max, best.values()):
                    kind = "of what is shown" if name in SHOWN else "of other things"
                    if MEANT[name]:
                        right_at[kind].append(id_ in MEANT[name])
        linked = {kind: round(sum(hits) / len(hits), 4) for kind, hits in right_at.items()}
        return cls(meant, shown, linked)

    def figures(self, kept: set[tuple[str, str]]) -> dict[str, float]:
        """Returns how many labels of the judged names are right."""
        judged = kept & self.meant.keys()
        right, wrong = judged & self.shown.keys(), [one for one in judged if not self.meant[one]]
        precision = len(right) / max(len(judged), 1)
        recall = len({self.shown[one] for one in right}) / len(set(self.shown.values()))
        return {
            "labels": len(judged),
            "wrong": round(1 - precision, 4),
            "of another sense": round(len(wrong) / max(len(judged), 1), 4),
            "precision": round(precision, 4),
            "recall": round(recall, 4),
            "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 4),
        }


if __name__ == "__main__":
    main()
