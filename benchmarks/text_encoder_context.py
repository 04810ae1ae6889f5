"""Does a text encoder tell the senses of a name better than the words that texts share?

    python benchmarks/text_encoder_context.py DATA --model MODEL [--kb brands-and-words]
        [--work FOLDER] [--out weights.json]

MODEL is a sentence-transformers directory or any other that `link --context` takes. Data, halves,
knowledge bases S (names, the fit half's anchors, last words of names) and the captions of the demo
world are those of linking_weights.py, the device titles and --kb those of named_entities.py.

Three contexts, each with weights fitted to the same fit halves and to captions with seed 0:

    words   the words that caption and description share, and their rarity: no network
    model   standardised cosines of MODEL
    both    the mean of the words' cosine and MODEL's

Reported on the other halves, on captions with seed 1 and on the titles. Cost is CPU time of one
thread: captions per second with the vectors of all candidates stored, and seconds to encode these
once. --out gets the weights of MODEL; the package's were fitted in this way to all-MiniLM-L6-v2.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ambiguous_captions import BY_HAND, by_kind, captions_of, demo_kb
from linking_quality import collect, halves, rounded, with_common_ids, write_sources
from linking_weights import FITTED, FITTED_DATA, demo_examples
from named_entities import brands_called, cpu_seconds, judged

from openmofi.config import KBSettings
from openmofi.evaluate.linking import evaluate_linking
from openmofi.evaluate.linking_data import LinkingData, read_linking
from openmofi.evaluate.linking_fit import examples_in
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label.entity_vectors import EntityVectors
from openmofi.label.text_context import text_linker
from openmofi.link import Linker, WordEncoder
from openmofi.link.fit import fit_link_weights
from openmofi.link.weights import LinkWeights, save_link_weights
from openmofi.model import MofiModel, load_text_encoder

CONTEXTS = ("words", "model", "both")
_MODEL_BY_HAND = replace(BY_HAND, context=1.0, coherence=0.25, standardised=True)


class Once:
    """An encoder that encodes no text twice, and measures its CPU time."""

    def __init__(self, model: MofiModel):
        self.model, self.dim, self.transform = model, model.dim, model.transform
        self.seconds = 0.0
        self._known: dict[str, np.ndarray] = {}

    def encode_texts_alone(self, texts: list[str]) -> np.ndarray:
        """Returns unit vectors."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        started = time.process_time()
        vectors = self.model.encode_texts_alone(new)
        self.seconds += time.process_time() - started
        self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])


@dataclass
class Both:
    """Words and an encoder side by side, so that the cosine is the mean of the two."""

    words: WordEncoder
    model: Once

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Returns vectors of length 1, or less for a text without words."""
        words = self.words.encode_texts(texts)
        lengths = np.linalg.norm(words, axis=1, keepdims=True)
        words /= np.maximum(lengths, np.finfo(np.float32).tiny)
        return np.hstack([words, self.model.encode_texts_alone(texts)])


@dataclass
class Linkers:
    """Makes linkers with each context."""

    model: Once
    work: Path

    def of(self, kb: KnowledgeBase, context: str, weights: LinkWeights | None = None) -> Linker:
        """Returns a linker, by default with the weights that fits start from."""
        if context == "model":
            return text_linker(kb, self.model, self._file(kb), weights=weights or _MODEL_BY_HAND)
        words = WordEncoder(kb)
        encoder = words if context == "words" else Both(words, self.model)
        return Linker(kb, encoder=encoder, weights=weights or BY_HAND)

    def stored(self, kb: KnowledgeBase, context: str) -> EntityVectors | None:
        """Returns where the model's linkers find the vectors of entities."""
        return EntityVectors(kb, self.model, self._file(kb)) if context == "model" else None

    def _file(self, kb: KnowledgeBase) -> Path:
        return self.work / f"{kb.fingerprint}.f16"


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kb", type=Path, help="knowledge base of brands and words")
    parser.add_argument("--work", type=Path, help="folder for the knowledge bases")
    parser.add_argument("--out", type=Path, help="JSON file for the weights of the model")
    arguments = parser.parse_args()
    model = Once(load_text_encoder(arguments.model, device="cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        work, name = arguments.work or Path(temporary), Path(arguments.model).name
        result = measure(arguments.data, arguments.kb, Linkers(model, work), name, arguments.out)
    print(json.dumps(result, indent=2))


def measure(
    folder: Path, brands: Path | None, linkers: Linkers, name: str, out: Path | None
) -> dict[str, Any]:
    """Fits, and returns the figures of every context.

    Args:
        folder: the data.
        brands: knowledge base for the titles of devices.
        linkers: the contexts.
        name: of the model, as the weights give it.
        out: file for the model's weights.
    """
    work = linkers.work
    read = [read_linking(path) for path in sorted((folder / "linking").glob("*.jsonl*"))]
    _, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    known, examples = zip(*(halves(data, bit=1) for data in fit), strict=True)
    (work / "demo").mkdir(parents=True, exist_ok=True)
    demo = demo_kb(work / "demo")
    learnt, judged_kb = surnames(datasets, known, work / "fit"), surnames(datasets, fit, work / "r")
    weights: dict[str, LinkWeights] = {}
    result: dict[str, Any] = {}
    for context in CONTEXTS:
        linker = linkers.of(learnt, context)
        groups = [examples_in(linker, data) for data in examples if data.name in FITTED_DATA]
        groups.append(demo_examples(linkers.of(demo, context), captions_of(0)))
        found = fit_link_weights(
            groups, start=linker.weights, data=source(context, name), terms=FITTED
        )
        weights[context] = replace(found.weights, nil=BY_HAND.nil)
        alone = [
            fit_link_weights([g], start=linker.weights, data="", terms=FITTED)
            for g in groups
            if len(g) >= 100
        ]
        result[context] = {
            "weights": asdict(weights[context]),
            "log likelihood while fitting": rounded(found.after),
            "weight of context, each group alone": [one.weights.context for one in alone],
        }
    if out is not None:
        save_link_weights(weights["model"], out)
    for context in CONTEXTS:
        linker = linkers.of(judged_kb, context, weights[context])
        sets = {
            data.name: benchmark(linker, data, linkers.stored(judged_kb, context))
            for data in report
        }
        names = ("accuracy", "precision", "recall", "f1")
        mean = {name: rounded(np.mean([one[name] for one in sets.values()])) for name in names}
        demo_linker = linkers.of(demo, context, weights[context])
        result[context] |= {
            "sets": sets,
            "mean": mean,
            "demo captions": {
                k: v["found"] for k, v in by_kind(demo_linker, captions_of(1)).items()
            },
        }
        if brands is not None:
            kb = KnowledgeBase.open(brands)
            linker = linkers.of(kb, context, weights[context])
            titles = folder / "real" / "devices" / "devices.csv"
            result[context]["devices"] = devices(linker, titles, linkers.stored(kb, context))
    return result


def source(context: str, model: str) -> str:
    """Returns what the weights say of themselves."""
    used = {"words": "words", "model": f"{model}, standardised", "both": f"words and {model}"}
    return (
        "prior, context, coherence and case: halves of Wikidata-MEL's development set (MELBench), "
        "derczynski and rss-500 (ELEVANT), with the names in that data, and captions like those of "
        f"the demo world with seed 0, context and coherence by {used[context]} "
        "(benchmarks/text_encoder_context.py); nil, linkability, type and detected: nothing, set "
        "by hand"
    )


def surnames(datasets: list[LinkingData], known: Any, work: Path) -> KnowledgeBase:
    """Returns linking_quality's knowledge base S with the anchors of `known`."""
    sources = write_sources(collect(datasets, tuple(known)), work)
    settings = KBSettings(preset="full", anchors=str(sources["anchors"]), anchor_min_count=1)
    build_kb([sources["S"]], out=work / "kb", settings=settings)
    return KnowledgeBase.open(work / "kb")


# ---- figures ------------------------------------------------------------------------------------


def benchmark(linker: Linker, data: LinkingData, entities: EntityVectors | None) -> dict[str, Any]:
    """Returns the figures of one benchmark and what they cost."""
    cost = costs(linker, [document.text for document in data.documents], entities)
    found = evaluate_linking(linker, data)
    ends = found.end_to_end
    figures = {"precision": ends.precision, "recall": ends.recall, "f1": ends.f1}
    figures |= {"accuracy": found.accuracy}
    return {**{name: rounded(value) for name, value in figures.items()}, **cost}


def costs(linker: Linker, texts: list[str], entities: EntityVectors | None) -> dict[str, Any]:
    """Returns CPU time of one thread; that of the candidates' texts apart, if they are encoded."""
    ids = Linker(linker.kb).link(texts, all_candidates=True)["id"].unique().to_pylist()
    once = 0.0
    if entities is not None:
        rows = np.array(linker.kb.rows_of(ids))
        once = cpu_seconds(lambda: entities.of(rows))
    seconds = cpu_seconds(lambda: linker.link(texts))
    return {
        "texts": len(texts),
        "candidates": len(ids),
        "CPU seconds, candidates": round(once, 1),
        "CPU seconds, linking": round(seconds, 2),
        "texts per CPU second": round(len(texts) / seconds),
    }


def devices(linker: Linker, file: Path, entities: EntityVectors | None) -> dict[str, Any]:
    """Returns how often a title's links to brands name its vendor, and how often IKEA is right."""
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    texts, vendors = [row["caption"] for row in rows], [row["vendor"] for row in rows]
    cost = costs(linker, texts, entities)
    links = linker.link(texts)
    bearers = {vendor: brands_called(linker.kb, vendor) for vendor in dict.fromkeys(vendors)}
    known = sum(bool(bearers[vendor]) for vendor in vendors)
    ids = zip(links["row"].to_pylist(), links["id"].to_pylist(), strict=True)
    ikea = Counter(id_ for row, id_ in ids if id_ in bearers[vendors[row]] and "IKEA" in texts[row])
    figures = judged(links, [bearers[vendor] for vendor in vendors], known)
    return {**figures, "IKEA": dict(ikea.most_common()), **cost}


if __name__ == "__main__":
    main()
