"""What does a crawl teach about the meanings of its names?

    python benchmarks/crawl_priors.py DATA --brands brands.csv [--wordnet /usr/share/wordnet]
        [--context MODEL] [--half 1] [--parts made devices pseudo demo labelled]

DATA holds linking/*.jsonl(.gz), wikidata/ and real/devices/devices.csv, as for named_entities.py;
brands.csv is written by examples/name_suggestion_index.py. The knowledge base is of all nouns of
WordNet (--preset full) and the brands. Everything is linked twice, without priors of a crawl and
with those learnt from the same captions, by words or by --context; learning knows words only.

    made      titles that begin with a brand of clothes, shoes and the like, half of which are also
              nouns, and captions of nouns, of which a third are also such brands; the brands are
              drawn from the catalogue, all else from short lists. Also with what is learnt from
              titles and captions of other brands
    devices   titles of products, judged by the vendor they begin with
    pseudo    the same titles of half of the vendors, whose brands are all known, and ambiguous by
              decree (Gale, Church and Yarowsky 1992): every second vendor is also a noun, five
              times as popular, and every second frequent noun is also a company, thirty times as
              popular. Settings were chosen on half 0
    demo      captions like those of the demo world, as in ambiguous_captions.py
    labelled  linking_quality's halves to report on, with knowledge base S

A link is right if its span is that of the name and its entity one of those meant.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ambiguous_captions import by_kind, captions_of, demo_kb
from linking_quality import rounded
from named_entities import brands_called, cpu_seconds, judged, surnames

from openmofi.cli.link import open_linker
from openmofi.config import KBSettings
from openmofi.evaluate.linking import evaluate_linking
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.crawl_priors import CrawlPriors
from openmofi.link.learn_priors import CaptionSample, learn_priors

PARTS = ("made", "devices", "pseudo", "demo", "labelled")
_SHOPS = {"clothes", "shoes", "bag", "watches", "jewelry", "cosmetics", "sports", "perfumery"}
_SHOPS |= {"fashion_accessories", "optician", "boutique", "leather"}
_WHO = ("Men", "Women", "Boys", "Girls", "Kids", "Unisex")
_COLOURS = ("Black", "White", "Blue", "Red", "Grey", "Navy Blue", "Pink", "Brown", "Silver")
_KINDS = ("Printed", "Striped", "Solid", "Casual", "Leather", "Slim Fit", "Washed", "Sports")
_WARES = ("T-shirt", "Shirt", "Running Shoes", "Watch", "Dial Watch", "Jeans", "Top", "Handbag")
_WARES += ("Wallet", "Sunglasses", "Flip Flops", "Sandals", "Socks", "Backpack", "Jacket", "Belt")
_PLACES = ("in the forest", "on a wooden table", "on the beach", "in a museum", "by the river")
_PLACES += ("at sunset", "in the garden", "on a white background", "in the street", "near a lake")
_CAPTIONS = ("a {n} {p}", "photo of a {n} and a {m}", "close up of a {n} {p}", "the {n} {p}")
_CAPTIONS += ("two people looking at a {n}", "{N} {p}", "my first {n} {p}", "a {m} next to a {n}")


@dataclass(frozen=True)
class Judged:
    """A caption with a name whose meaning is known."""

    text: str
    start: int
    meant: frozenset[str]
    kind: str


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--brands", type=Path, required=True)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--context", default="words")
    parser.add_argument("--half", type=int, default=1)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    arguments = parser.parse_args()
    context, half, parts = arguments.context, arguments.half, arguments.parts
    sources = [arguments.wordnet, arguments.brands]
    titles = titles_of(arguments.data / "real" / "devices" / "devices.csv")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        kb = build(sources, work / "kb")
        for seed in (0, 1, 2) if "made" in parts else ():
            result[f"made, seed {seed}"] = on_made(kb, arguments.brands, seed, context)
        if "devices" in parts:
            result["devices"] = on_devices(kb, titles, context)
        if "pseudo" in parts:
            some = [row for row in titles if half_of(row["vendor"]) == half]
            result[f"pseudo, half {half}"] = on_pseudo(kb, some, sources, work, context)
        demo = demo_kb(work)
        for seed in (1, 2, 3) if "demo" in parts else ():
            result[f"demo, seed {seed}"] = on_demo(demo, seed, context)
        if "labelled" in parts:
            surnamed, report = surnames(arguments.data, work)
            result |= {data.name: on_labelled(surnamed, data, context) for data in report}
    print(json.dumps(result, indent=2, ensure_ascii=False))


def build(sources: list[Path], out: Path) -> KnowledgeBase:
    build_kb(sources, out=out, settings=KBSettings(preset="full"))
    return KnowledgeBase.open(out)


def learn(kb: KnowledgeBase, texts: list[str]) -> tuple[CrawlPriors, dict[str, Any]]:
    """Returns what texts teach, and what is to be known about it."""
    started = time.process_time()
    sample = CaptionSample(kb)
    sample.add(texts)
    priors = learn_priors(Linker(kb, encoder=WordEncoder(kb)), sample.captions)
    seconds = time.process_time() - started
    about = {key: value for key, value in priors.about.items() if key != "moved"}
    about |= {"trust": rounded(priors.company.trust), "moved": len(priors.about.get("moved", []))}
    return priors, {**about, "captions per CPU second": round(len(texts) / seconds)}


def twice(kb: KnowledgeBase, context: str, priors: CrawlPriors) -> dict[str, Linker]:
    found = {"before": None, "after": priors}
    return {name: open_linker(kb, context, priors=one) for name, one in found.items()}


def shares(linker: Linker, captions: list[Judged]) -> dict[str, Any]:
    """Returns the share of right links and the number of names, by kind of caption."""
    links = linker.link([caption.text for caption in captions]).select(["row", "start", "id"])
    found = {(row, start): id_ for row, start, id_ in zip(*links.to_pydict().values(), strict=True)}
    right, number = Counter(), Counter(caption.kind for caption in captions)
    for row, caption in enumerate(captions):
        right[caption.kind] += found.get((row, caption.start)) in caption.meant
    return {kind: [rounded(right[kind] / number[kind]), number[kind]] for kind in sorted(number)}


# ---- made titles and captions -------------------------------------------------------------------


def on_made(kb: KnowledgeBase, brands: Path, seed: int, context: str) -> dict[str, Any]:
    """Returns the figures of made captions, and of those of brands that were not learnt from."""
    captions = make_captions(kb, brands, seed)
    priors, about = learn(kb, [caption.text for caption in captions])
    others, _ = learn(kb, [c.text for c in make_captions(kb, brands, seed, which=1)])
    figures = {name: shares(one, captions) for name, one in twice(kb, context, priors).items()}
    unseen = shares(open_linker(kb, context, priors=others), captions)
    return {"learnt": about, **figures, "after learning from other brands": unseen}


def make_captions(kb: KnowledgeBase, brands: Path, seed: int, which: int = 0) -> list[Judged]:
    """Writes 4,000 titles and 2,000 captions with every second brand and noun.

    Args:
        kb: all of WordNet and the brands.
        brands: the catalogue.
        seed: of the random numbers.
        which: 0 or 1: which of two halves of brands and nouns to use.
    """
    rng = np.random.default_rng(seed)
    with brands.open(encoding="utf-8") as lines:
        names = sorted(
            {
                row["name"]
                for row in csv.DictReader(lines)
                if _SHOPS & set(row["types"].split("|"))
                and re.fullmatch(r"[A-Z][A-Za-z'& -]{2,20}", row["name"])
            }
        )
    ids = {name: set(kb.lookup([name])["id"].to_pylist()) for name in names}
    meant = {name: frozenset(id_ for id_ in ids[name] if id_[0] == "Q") for name in names}
    both = [name for name in names if meant[name] and meant[name] != ids[name]]
    alone = [name for name in names if meant[name] and meant[name] == ids[name]]
    both, alone = ([*rng.permutation(part)][which::2] for part in (both, alone))
    shop = rng.permutation([*both[:60], *alone[:90]]).tolist()
    popularity = np.arange(1, len(shop) + 1) ** -0.8
    popularity /= popularity.sum()

    def some(words: tuple[str, ...], share: float = 1.0) -> str:
        return str(rng.choice(words)) if rng.random() < share else ""

    captions = []
    for name in rng.choice(shop, 4000, p=popularity):
        words = (name, some(_WHO, 0.85), some(_KINDS, 0.6), some(_COLOURS), some(_WARES))
        text = " ".join(word for word in words if word)
        kind = "titles" if meant[name] == ids[name] else "titles, brand is also a noun"
        captions.append(Judged(text, 0, meant[name], kind))
    nouns = (kb.texts.label[row].as_py() for row in range(8000) if kb.ids[row].as_py()[0] == "n")
    nouns = sorted({noun for noun in nouns if re.fullmatch("[a-z]{3,12}", noun)})[which::2]
    shared = [name.lower() for name in both if re.fullmatch("[A-Z][a-z]+", name)]
    for _ in range(2000):
        noun = str(rng.choice(shared if rng.random() < 0.3 else nouns))
        filling = {"n": noun, "N": noun.capitalize(), "m": rng.choice(nouns), "p": some(_PLACES)}
        text, ids_of_noun = some(_CAPTIONS).format(**filling), kb.lookup([noun])["id"].to_pylist()
        right = frozenset(id_ for id_ in ids_of_noun if id_[0] == "n")
        start = re.search(rf"\b{noun}\b", text.lower())
        assert start
        kind = "captions" if len(right) == len(ids_of_noun) else "captions, noun is also a brand"
        captions.append(Judged(text, start.start(), right, kind))
    return [captions[i] for i in rng.permutation(len(captions))]


# ---- titles of devices --------------------------------------------------------------------------


def titles_of(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def half_of(vendor: str) -> int:
    return hashlib.sha256(vendor.encode()).digest()[0] & 1


def on_devices(kb: KnowledgeBase, titles: list[dict[str, str]], context: str) -> dict[str, Any]:
    """Returns how often titles are linked to the brand of their vendor."""
    texts, vendors = [row["caption"] for row in titles], [row["vendor"] for row in titles]
    bearers = {vendor: brands_called(kb, vendor) for vendor in dict.fromkeys(vendors)}
    priors, about = learn(kb, texts)
    captions = [
        Judged(text, 0, frozenset(bearers[vendor]), "titles" + ambiguous(kb, vendor))
        for text, vendor in zip(texts, vendors, strict=True)
        if bearers[vendor]
    ]
    figures: dict[str, Any] = {"learnt": about}
    for name, linker in twice(kb, context, priors).items():
        links = linker.link(texts)
        of_all = judged(links, [bearers[vendor] for vendor in vendors], len(captions))
        linker.link(texts)  # the vectors of all candidates are known now
        rate = round(len(texts) / cpu_seconds(lambda linker=linker: linker.link(texts)))
        figures[name] = {**shares(linker, captions), **of_all, "titles per CPU second": rate}
    return figures


def ambiguous(kb: KnowledgeBase, name: str) -> str:
    ids = kb.lookup([name])["id"].to_pylist()
    return ", vendor is also a noun" if any(id_[0] != "Q" for id_ in ids) else ""


def on_pseudo(
    kb: KnowledgeBase, titles: list[dict[str, str]], sources: list[Path], work: Path, context: str
) -> dict[str, Any]:
    """Returns the figures of titles whose names are ambiguous by decree."""
    rng = np.random.default_rng(0)
    vendors = sorted({row["vendor"] for row in titles})
    words = [set(re.findall("[a-z]{3,}", row["title"].lower())) for row in titles]
    frequent = Counter(word for of_title in words for word in sorted(of_title))
    nouns = [
        word
        for word, _ in frequent.most_common(400)
        if (ids := kb.lookup([word])["id"].to_pylist()) and all(id_[0] == "n" for id_ in ids)
    ][:60]
    types = kb.entities(["types"])["types"]
    donors = [row for row in range(20_000) if kb.ids[row].as_py()[0] == "n"]
    made = [(f"QV{i}", name, "manufacturer", "manufacturer", 1) for i, name in enumerate(vendors)]
    for i, noun in enumerate(nouns[::2]):
        made.append((f"QN{i}", noun.capitalize(), "company", "manufacturer", 30))
    senses = []
    for i, vendor in enumerate(vendors[::2]):
        row = int(rng.choice(donors))
        name = vendor.lower() if rng.random() < 0.5 else vendor
        described = kb.texts.description[row].as_py(), "|".join(types[row].as_py())
        senses.append((f"nV{i}", name, *described, 5))
    for name, rows in (("vendors", made), ("senses", senses)):
        with (work / f"{name}.csv").open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(("id", "name", "description", "types", "weight"))
            writer.writerows(rows)
    kb = build([*sources, work / "vendors.csv", work / "senses.csv"], work / "kb-pseudo")
    captions, twofold = [], set(nouns[::2])
    for row, of_title in zip(titles, words, strict=True):
        ids = set(kb.lookup([row["vendor"]])["id"].to_pylist())
        meant = frozenset(id_ for id_ in ids if id_[0] == "Q")
        kind = "vendors" if meant == ids else "vendors that are also nouns"
        captions.append(Judged(row["caption"], 0, meant, kind))
        for noun in sorted(of_title & twofold):
            place = re.search(rf"\b{noun}\b", row["caption"].lower()[len(row["vendor"]) :])
            if place is None:
                continue
            right = frozenset(id_ for id_ in kb.lookup([noun])["id"].to_pylist() if id_[0] == "n")
            start = len(row["vendor"]) + place.start()
            captions.append(Judged(row["caption"], start, right, "nouns that are also companies"))
    priors, about_priors = learn(kb, [row["caption"] for row in titles])
    figures = {name: shares(one, captions) for name, one in twice(kb, context, priors).items()}
    return {"learnt": about_priors, **figures}


# ---- captions of the demo, labelled texts -------------------------------------------------------


def on_demo(kb: KnowledgeBase, seed: int, context: str) -> dict[str, Any]:
    """Returns the share of named things that are found, by kind of caption."""
    captions = captions_of(seed)
    priors, about = learn(kb, [caption.text for caption in captions])
    found = {
        name: {kind: figures["found"] for kind, figures in by_kind(linker, captions).items()}
        for name, linker in twice(kb, context, priors).items()
    }
    return {"learnt": about, **found}


def on_labelled(kb: KnowledgeBase, data: Any, context: str) -> dict[str, Any]:
    """Returns accuracy and F1 of a labelled set."""
    priors, about = learn(kb, [document.text for document in data.documents])
    figures: dict[str, Any] = {"learnt": about}
    for name, linker in twice(kb, context, priors).items():
        result = evaluate_linking(linker, data)
        ends = rounded(result.end_to_end.f1)
        figures[name] = {"accuracy": rounded(result.accuracy), "f1": ends}
    return figures


if __name__ == "__main__":
    main()
