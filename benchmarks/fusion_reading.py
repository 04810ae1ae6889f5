"""What does reading a mention with all its candidates add, and what does it cost?

    python benchmarks/fusion_reading.py DATA --encoder MODEL --work FOLDER [--set epochs=2]

Data, halves, knowledge base S (names and last words of names, the fit half's anchors) and the
captions of the demo world are those of linking_weights.py. A reader is trained from MODEL on the
fit halves of the four sets with gold ids, and on captions with seed 0, on the package's weights;
while training, the anchors come from one half of the fit half, the examples from the other.

Reported on the other halves: accuracy of given spans, by the probability of a mistake above which
they are read. On captions with seeds 1 to 3: the share of named things that are found, and captions
per CPU second of one thread, by the share of mentions that are read, the least certain first; all
candidates are encoded before, and nothing is remembered. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ambiguous_captions import by_kind, captions_of, demo_kb
from linking_quality import halves, with_common_ids
from linking_weights import demo_examples
from text_encoder_context import surnames

from openmofi.config import FusionSettings, LinkSettings, override, parse_assignments
from openmofi.evaluate.linking_data import LinkingData, read_linking
from openmofi.evaluate.linking_fit import examples_in
from openmofi.kb import KnowledgeBase
from openmofi.label.fusion import open_fusion
from openmofi.link import Linker, WordEncoder
from openmofi.link.weights import load_link_weights
from openmofi.train.fusion import train_reader
from openmofi.train.fusion_examples import examples_of_group, joined

TRAINED = ("wikidata_mel_dev", "richpedia_mel", "elevant_derczynski", "elevant_rss-500")
SHARES = (0, 0.01, 0.05, 0.2, 1)
"""Shares of the captions' mentions that are read."""
ABOVE = (1.0, 0.5, 0.3, 0.1, 0.0)
"""Probabilities of a mistake above which given spans are read."""


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--set", nargs="+", default=[], dest="changes")
    arguments = parser.parse_args()
    work = arguments.work
    read = [read_linking(path) for path in sorted((arguments.data / "linking").glob("*.jsonl*"))]
    _, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    known, examples = zip(*(halves(data, bit=1) for data in fit), strict=True)
    (work / "demo").mkdir(parents=True, exist_ok=True)
    demo = demo_kb(work / "demo")
    folder, result = work / "reader", {}
    if not folder.is_dir():
        learnt = words(surnames(datasets, known, work / "fit"))
        parts = []
        for data in examples:
            if data.name in TRAINED:
                texts = [document.text for document in data.documents]
                parts.append(examples_of_group(learnt, examples_in(learnt, data), texts))
        captions, linker = captions_of(0), words(demo)
        group = demo_examples(linker, captions)
        parts.append(examples_of_group(linker, group, [caption.text for caption in captions]))
        result["examples"] = [len(part.mentions) for part in parts]
        started = time.process_time()
        trained = train_reader(
            joined(parts),
            load_link_weights(),
            described={"data": [*TRAINED, "demo captions"]},
            encoder=arguments.encoder,
            out=folder,
            settings=override(FusionSettings(), parse_assignments(arguments.changes)),
            device="cpu",
        )
        result["trained"] = {"step": trained.steps, "held out": [trained.before, trained.after]}
        result["CPU seconds of training"] = round(time.process_time() - started)
    judged = surnames(datasets, fit, work / "report")
    result["sets"] = {data.name: figures(judged, folder, data) for data in report}
    result["demo captions"] = {seed: of_captions(demo, folder, seed) for seed in (1, 2, 3)}
    print(json.dumps(result, indent=1))


def words(kb: KnowledgeBase) -> Linker:
    """Returns a linker with the package's weights and words as its context."""
    return Linker(kb, encoder=WordEncoder(kb))


def reading(kb: KnowledgeBase, folder: Path, above: float) -> Linker:
    """Returns a linker with a reader."""
    reader = open_fusion(folder, kb, folder, device="cpu")
    settings = LinkSettings(read_above=above)
    return Linker(kb, encoder=WordEncoder(kb), fusion=reader, settings=settings)


def figures(kb: KnowledgeBase, folder: Path, data: LinkingData) -> dict[str, Any]:
    """Returns accuracy of given spans by what is read."""
    required = sum(len(document.required) for document in data.documents)
    found: dict[str, Any] = {"mentions": required}
    for above in ABOVE:
        examples = examples_in(reading(kb, folder, above), data)
        fusion = examples.candidates["fusion"].to_numpy()[examples.begin]
        found[f"above {above}"] = {
            "accuracy": round(float(examples.target[examples.begin].sum() / required), 4),
            "read": round(float(np.mean(~np.isnan(fusion))), 3),
        }
    return found


def of_captions(kb: KnowledgeBase, folder: Path, seed: int) -> dict[str, Any]:
    """Returns the share of named things that are found, and the speed, by what is read."""
    captions = captions_of(seed)
    texts = [caption.text for caption in captions]
    reading(kb, folder, 0).link(texts)  # encodes all candidates
    result = {}
    for share, above in thresholds(kb, texts).items():
        found = by_kind(reading(kb, folder, above), captions)
        fresh, started = reading(kb, folder, above), time.process_time()
        fresh.link(texts)
        rate = round(len(texts) / (time.process_time() - started))
        shares = {kind: one["found"] for kind, one in found.items()}
        result[f"{share:.0%} read"] = {**shares, "captions per CPU second": rate}
    return result


def thresholds(kb: KnowledgeBase, texts: list[str]) -> dict[float, float]:
    """Returns share of mentions -> probability of a mistake above which so many are read."""
    table = words(kb).link(texts, all_candidates=True)
    begin = np.flatnonzero(table["rank"].to_numpy() == 0)
    score = table["score"].to_numpy().astype(np.float64)
    best, nil = score[begin], 1 - np.add.reduceat(score, begin)
    error = 1 - np.maximum(best, nil)
    return {share: float(np.quantile(error, 1 - share)) if share < 1 else 0.0 for share in SHARES}


if __name__ == "__main__":
    main()
