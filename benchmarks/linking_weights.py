"""Do fitted weights link better than weights set by hand, and which terms of the score help?

    python benchmarks/linking_weights.py DATA [--work FOLDER] [--out weights.json]

The data, its halves and the knowledge base S (names, anchors of the fit half, last words of names)
are those of linking_quality.py; the demo's captions are those of ambiguous_captions.py.

Fitted on the fit halves of wikidata_mel, derczynski and rss-500 and on the demo's captions of seed
0; each once with names counted in the texts of all fit halves (the term `linkability`) and once
without. A prior must not have seen the mentions that its weight is fitted to: while fitting, the
anchors come from one half of the fit half, the examples from the other.

Reported on the other halves of all data, and on the demo's captions of seed 1. Accuracy is that of
given spans, F1 end to end; «min_score» leaves out mentions less probable than that. An ablation
fits again without one term. The benchmarks' entities have neither descriptions nor types nor
popularity, so that context, coherence and types can only show on the demo's captions.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from ambiguous_captions import BY_HAND, captions_of, demo_kb, shares
from linking_quality import collect, halves, rounded, with_common_ids, write_sources

from openmofi.config import KBSettings, LinkSettings
from openmofi.demo.captions import Caption
from openmofi.evaluate.linking import evaluate_linking
from openmofi.evaluate.linking_data import LinkingData, read_linking
from openmofi.evaluate.linking_fit import examples_in
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.fit import GOLD, Examples, LinkFit, examples_of, fit_link_weights
from openmofi.link.linkability import count_names
from openmofi.link.weights import LinkWeights, save_link_weights

# What the examples can tell about: their entities have no types worth the name, and nobody detected
# mentions.
_FITTED = ("prior", "context", "coherence", "linkability", "case")
_FITTED_DATA = ("wikidata_mel_dev", "elevant_derczynski", "elevant_rss-500")
_SURE = 0.5
_SOURCE = (
    "prior, context, coherence, linkability, case and nil: jointly on halves of Wikidata-MEL's "
    "development set (MELBench), derczynski and rss-500 (ELEVANT), with a KB of the names in that "
    "data, and on captions like those of the demo world with seed 0; context compared by words; "
    "type and detected: nothing, set by hand (benchmarks/linking_weights.py)"
)


@dataclass(frozen=True)
class Bases:
    """Knowledge bases with and without counted names."""

    plain: KnowledgeBase
    counted: KnowledgeBase


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the knowledge bases")
    parser.add_argument("--out", type=Path, help="JSON file for the fitted weights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        fit, result = measure(arguments.data, arguments.work or Path(temporary))
    if arguments.out:
        save_link_weights(fit.weights, arguments.out)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(result, indent=2, ensure_ascii=False))


def measure(folder: Path, work: Path) -> tuple[LinkFit, dict[str, Any]]:
    """Fits, and returns the figures of every choice of weights."""
    read = [read_linking(path) for path in sorted((folder / "linking").glob("*.jsonl*"))]
    _, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    known, examples = zip(*(halves(data, bit=1) for data in fit), strict=True)
    texts = [[document.text for document in data.documents] for data in fit]
    learnt = bases(work / "fit", datasets, known, texts)
    judged = bases(work / "report", datasets, fit, texts)
    (work / "demo").mkdir(exist_ok=True)
    demo = counted(demo_kb(work / "demo"), [[c.text for c in captions_of(0)]])
    groups = groups_of(learnt, examples, demo)
    whole = fit_link_weights(groups, start=BY_HAND, data=_SOURCE, terms=_FITTED)
    figures = Figures(judged, demo, report)
    return whole, {
        "examples": [{"mentions": len(g), "right": int(g.right.sum())} for g in groups],
        "weights": asdict(whole.weights),
        "log likelihood": {"by hand": rounded(whole.before), "fitted": rounded(whole.after)},
        "by hand": figures.of(BY_HAND),
        "fitted": figures.of(whole.weights),
        "fitted without": {
            name: {"weights": asdict(less), **figures.of(less)}
            for name, less in ((name, without(name, groups)) for name in _FITTED)
        },
    }


# ---- fitting ------------------------------------------------------------------------------------


def bases(
    work: Path,
    datasets: list[LinkingData],
    known: Sequence[LinkingData],
    texts: list[list[str]],
) -> Bases:
    """Builds the knowledge base S with the anchors of `known`, and counts names in texts."""
    sources = write_sources(collect(datasets, tuple(known)), work)
    settings = KBSettings(preset="full", anchors=str(sources["anchors"]), anchor_min_count=1)
    build_kb([sources["S"]], out=work / "kb", settings=settings)
    return counted(KnowledgeBase.open(work / "kb"), texts)


def counted(plain: KnowledgeBase, texts: list[list[str]]) -> Bases:
    """Copies a knowledge base and counts its names."""
    copy = plain.path.with_name(f"{plain.path.name}-counted")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(plain.path, copy)
    count_names(KnowledgeBase.open(copy), texts)
    return Bases(plain, KnowledgeBase.open(copy))


def linker_of(kb: KnowledgeBase, weights: LinkWeights, min_score: float = 0.0) -> Linker:
    settings = LinkSettings(min_score=min_score)
    return Linker(kb, encoder=WordEncoder(kb), weights=weights, settings=settings)


def groups_of(learnt: Bases, examples: Sequence[LinkingData], demo: Bases) -> list[Examples]:
    groups = [
        examples_in(linker_of(kb, BY_HAND), data)
        for data in examples
        if data.name in _FITTED_DATA
        for kb in (learnt.plain, learnt.counted)
    ]
    captions = captions_of(0)
    return [*groups, *(demo_examples(kb, captions) for kb in (demo.plain, demo.counted))]


def demo_examples(kb: KnowledgeBase, captions: list[Caption]) -> Examples:
    """Returns examples whose truth is what a caption names; unclear where two names could be it."""
    linker = linker_of(kb, BY_HAND)
    texts = [caption.text for caption in captions]
    found = linker.link(texts, all_candidates=True).select(["row", "start", "end", "id"])
    offered: dict[tuple[int, int, int], list[str]] = {}
    for row in found.to_pylist():
        offered.setdefault((row["row"], row["start"], row["end"]), []).append(row["id"])
    gold = []
    for (row, start, end), ids in offered.items():
        meant = set(ids) & set(captions[row].mentioned)
        gold.append((row, start, end, min(meant, default=None), len(meant) > 1))
    columns = zip(*gold, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, GOLD, strict=True)]
    gold_table = pa.Table.from_arrays(arrays, schema=GOLD)
    return examples_of(linker, texts, gold_table, complete=True)


def without(name: str, groups: Sequence[Examples]) -> LinkWeights:
    """Fits again with one term left out."""
    start = replace(BY_HAND, **{name: 0.0})
    terms = [term for term in _FITTED if term != name]
    return fit_link_weights(groups, start=start, data=f"without {name}", terms=terms).weights


# ---- figures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What is reported on."""

    kbs: Bases
    demo: Bases
    report: Sequence[LinkingData]

    def of(self, weights: LinkWeights) -> dict[str, Any]:
        """Returns the figures of weights, with and without counted names."""
        return {
            "names not counted": self._on(self.kbs.plain, self.demo.plain, weights),
            "names counted": self._on(self.kbs.counted, self.demo.counted, weights),
        }

    def _on(
        self, kb: KnowledgeBase, demo: KnowledgeBase, weights: LinkWeights
    ) -> dict[str, dict[str, float | None]]:
        found = {data.name: _on_data(kb, weights, data) for data in self.report}
        names = next(iter(found.values()))
        mean = {name: sum(one[name] or 0 for one in found.values()) / len(found) for name in names}
        return {
            **found,
            "mean of datasets": {name: rounded(value) for name, value in mean.items()},
            "demo captions": _on_demo(demo, weights),
        }


def _on_data(kb: KnowledgeBase, weights: LinkWeights, data: LinkingData) -> dict[str, float | None]:
    every = evaluate_linking(linker_of(kb, weights), data)
    sure = evaluate_linking(linker_of(kb, weights, _SURE), data).end_to_end
    return {
        "recall among candidates": rounded(every.recall_at["30"]),
        "accuracy": rounded(every.accuracy),
        "f1": rounded(every.end_to_end.f1),
        f"f1, min_score {_SURE}": rounded(sure.f1),
        f"precision, min_score {_SURE}": rounded(sure.precision),
        f"recall, min_score {_SURE}": rounded(sure.recall),
    }


def _on_demo(kb: KnowledgeBase, weights: LinkWeights) -> dict[str, float | None]:
    captions = captions_of(1)
    found = {}
    for name, least in (("", 0.0), (f", min_score {_SURE}", _SURE)):
        best: list[list[str]] = [[] for _ in captions]
        table = linker_of(kb, weights, least).link([caption.text for caption in captions])
        for row, identifier in zip(table["row"].to_pylist(), table["id"].to_pylist(), strict=True):
            best[row].append(identifier)
        part = shares(list(zip(captions, best, strict=True)))
        found |= {f"{key}{name}": value for key, value in part.items()}
    return found


if __name__ == "__main__":
    main()
