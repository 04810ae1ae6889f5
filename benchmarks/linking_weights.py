"""Do fitted weights link better than weights set by hand, and which terms of the score help?

    python benchmarks/linking_weights.py DATA [--work FOLDER] [--out fitted.json]

The data, its halves and the knowledge bases B (names, and the fit half's anchors) and S (and last
words of names) are those of linking_quality.py; the captions those of ambiguous_captions.py.

Fitted on the fit halves of wikidata_mel, derczynski and rss-500 with S, and on captions of the demo
world with seed 0. A prior must not have seen the mentions that its weight is fitted to: while
fitting, the anchors come from one half of the fit half, the examples from the other. Set by hand
stay NIL, as how often a name means nothing differs from group to group; linkability, as most names
occur once or twice in these texts; type and detected, which the data lacks. A second fit takes NIL
and linkability, too: each group once with and once without names counted in its texts.

Reported on the other halves of all data, and on captions with seed 1:
    accuracy        of given spans (the demo's captions: see `found` in ambiguous_captions.py)
    f1              end to end; with min_score, mentions less probable than that are left out
    log likelihood  of the truth, mean by mention, how often a name is NIL being known: its weight
                    is fitted to each dataset
An ablation fits again without one term; that of linkability is not to count names. The benchmarks'
entities have neither descriptions nor types nor popularity: context there compares a text with
names alone, and coherence names with each other. What these terms are for shows on the demo's
captions.
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
from openmofi.link.fit import GOLD, LinkExamples, examples_of, fit_link_weights
from openmofi.link.linkability import count_names
from openmofi.link.weights import LinkWeights, save_link_weights

FITTED = ("prior", "context", "coherence", "case")
FITTED_DATA = ("wikidata_mel_dev", "elevant_derczynski", "elevant_rss-500")
_SURE = 0.5
_UNCOUNTED = "names not counted"
_SOURCE = (
    "prior, context, coherence and case: halves of Wikidata-MEL's development set (MELBench), "
    "derczynski and rss-500 (ELEVANT), with the names in that data, and captions like those of the "
    "demo world with seed 0, context and coherence by words (benchmarks/linking_weights.py); nil, "
    "linkability, type and detected: nothing, set by hand"
)


@dataclass(frozen=True)
class Bases:
    """Knowledge bases with and without counted names."""

    plain: KnowledgeBase
    counted: KnowledgeBase

    def by_kind(self) -> list[tuple[str, KnowledgeBase]]:
        return [(_UNCOUNTED, self.plain), ("names counted", self.counted)]


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the knowledge bases")
    parser.add_argument("--out", type=Path, help="JSON file for the fitted weights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        fitted, result = measure(arguments.data, arguments.work or Path(temporary))
    if arguments.out:
        save_link_weights(fitted, arguments.out)
    result["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(result, indent=2, ensure_ascii=False))


def measure(folder: Path, work: Path) -> tuple[LinkWeights, dict[str, Any]]:
    """Fits, and returns the figures of every choice of weights."""
    read = [read_linking(path) for path in sorted((folder / "linking").glob("*.jsonl*"))]
    _, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    known, examples = zip(*(halves(data, bit=1) for data in fit), strict=True)
    texts = [[document.text for document in data.documents] for data in fit]
    learnt = bases(work / "fit", datasets, known, texts)
    (work / "demo").mkdir(exist_ok=True)
    demo = counted(demo_kb(work / "demo"), [[c.text for c in captions_of(0)]])
    groups = groups_of(learnt["S"], examples, demo, captions_of(0))
    uncounted = [group for name, group in groups.items() if name.endswith(_UNCOUNTED)]
    found = fit_link_weights(uncounted, start=BY_HAND, data=_SOURCE, terms=FITTED)
    fitted = replace(found.weights, nil=BY_HAND.nil)
    wider = fit_link_weights(
        list(groups.values()), start=BY_HAND, data="wider", terms=(*FITTED, "linkability")
    )
    judged = bases(work / "report", datasets, fit, texts)
    figures = Figures(judged, demo, report, groups_of(judged["S"], report, demo, captions_of(1)))
    return fitted, {
        "groups": {
            name: {**about(group), "nil": nil}
            for (name, group), nil in zip(groups.items(), wider.nil_of_group, strict=True)
        },
        "by hand": figures.of(BY_HAND),
        "fitted": figures.of(fitted),
        "fitted without": {name: figures.of(without(name, uncounted)) for name in FITTED},
        "fitted, NIL and linkability too": figures.of(wider.weights),
    }


def about(group: LinkExamples) -> dict[str, int | bool]:
    return {
        "mentions": len(group),
        "with a right candidate": int(group.target.sum()),
        "complete": group.complete,
    }


# ---- fitting ------------------------------------------------------------------------------------


def bases(
    work: Path,
    datasets: list[LinkingData],
    known: Sequence[LinkingData],
    texts: list[list[str]],
) -> dict[str, Bases]:
    """Builds knowledge bases with the anchors of `known`, and counts their names in texts."""
    sources = write_sources(collect(datasets, tuple(known)), work)
    settings = KBSettings(preset="full", anchors=str(sources["anchors"]), anchor_min_count=1)
    found: dict[str, Bases] = {}
    for name in ("B", "S"):
        build_kb([sources[name]], out=work / f"kb-{name}", settings=settings)
        found[name] = counted(KnowledgeBase.open(work / f"kb-{name}"), texts)
    return found


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


def groups_of(
    kbs: Bases, examples: Sequence[LinkingData], demo: Bases, captions: list[Caption]
) -> dict[str, LinkExamples]:
    found = {}
    for data in examples:
        if data.name in FITTED_DATA:
            for kind, kb in kbs.by_kind():
                found[f"{data.name}, {kind}"] = examples_in(linker_of(kb, BY_HAND), data)
    for kind, kb in demo.by_kind():
        found[f"demo captions, {kind}"] = demo_examples(linker_of(kb, BY_HAND), captions)
    return found


def demo_examples(linker: Linker, captions: list[Caption]) -> LinkExamples:
    """Returns examples whose truth is what a caption names; unclear where two names could be it."""
    texts = [caption.text for caption in captions]
    found = linker.link(texts, all_candidates=True).select(["row", "start", "end", "id"])
    offered: dict[tuple[int, int, int], list[str]] = {}
    for row in found.to_pylist():
        offered.setdefault((row["row"], row["start"], row["end"]), []).append(row["id"])
    gold = []
    for (row, start, end), ids in offered.items():
        meant = set(ids) & set(captions[row].mentioned)
        gold.append((row, start, end, min(meant, default=None), len(meant) > 1, 1.0))
    columns = zip(*gold, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, GOLD, strict=True)]
    gold_table = pa.Table.from_arrays(arrays, schema=GOLD)
    return examples_of(linker, texts, gold_table, complete=True)


def without(name: str, groups: Sequence[LinkExamples]) -> LinkWeights:
    """Fits again with one term left out."""
    unused: dict[str, Any] = {name: 0.0}
    start = replace(BY_HAND, **unused)
    terms = [term for term in FITTED if term != name]
    found = fit_link_weights(groups, start=start, data=f"without {name}", terms=terms)
    return replace(found.weights, nil=BY_HAND.nil)


# ---- figures ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """What is reported on."""

    kbs: dict[str, Bases]
    demo: Bases
    report: Sequence[LinkingData]
    groups: dict[str, LinkExamples]

    def of(self, weights: LinkWeights) -> dict[str, Any]:
        """Returns all figures of weights, with and without counted names."""
        return {
            "weights": asdict(weights),
            "log likelihood": self._likelihood(weights),
            **{
                f"{name}, {kind}": _on_all(kb, weights, self.report)
                for name, kbs in self.kbs.items()
                for kind, kb in kbs.by_kind()
            },
            **{f"demo captions, {kind}": _on_demo(kb, weights) for kind, kb in self.demo.by_kind()},
        }

    def _likelihood(self, weights: LinkWeights) -> dict[str, float | None]:
        return {
            name: rounded(fit_link_weights([group], start=weights, data=name, terms=()).after)
            for name, group in self.groups.items()
        }


def _on_all(
    kb: KnowledgeBase, weights: LinkWeights, report: Sequence[LinkingData]
) -> dict[str, dict[str, float | None]]:
    found = {data.name: _on_data(kb, weights, data) for data in report}
    names = next(iter(found.values()))
    mean = {name: sum(one[name] or 0 for one in found.values()) / len(found) for name in names}
    sizes = {data.name: sum(len(d.required) for d in data.documents) for data in report}
    right = sum(size * (found[name]["accuracy"] or 0) for name, size in sizes.items())
    return {
        **found,
        "mean": {name: rounded(value) for name, value in mean.items()},
        "all mentions": {"accuracy": rounded(right / sum(sizes.values()))},
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
