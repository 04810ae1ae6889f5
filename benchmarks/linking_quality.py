"""How well are real captions and tweets linked, with a KB of nothing but the names in the data?

    python benchmarks/linking_quality.py DATA [--work FOLDER]

DATA holds linking/*.jsonl(.gz) (MELBench, ELEVANT, ZELDA) and wikidata/sample_items_100.json.bz2.
Documents are halved by a hash of their ids: what may be learnt from (fit) and what is reported on.

The knowledge base holds every gold entity of every dataset under the names that the data gives it,
so that entities of one name are each other's senses, and the 100 items of the sample dump. ZELDA
gives Wikipedia titles: a title without brackets that is the name of exactly one other gold entity
is taken for its article, any other becomes an entity of its own.

    A  these names alone
    B  and the surfaces of the fit half's mentions, as anchor counts
    S  and the last word of every name of several words, as an alias: captions say Robertson
    D  and for every entity one fit-half text of its own, the mention cut out, as its description

The data has no descriptions and no popularity, so A, B and S show names and context without either;
D is a lower bound of what descriptions add. It is compared with S on the mentions all of whose
candidates have a description: elsewhere, having one would tell that an entity is frequent.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from openmofi.config import KBSettings
from openmofi.evaluate.linking import LinkingResult, evaluate_linking
from openmofi.evaluate.linking_answers import run_linker
from openmofi.evaluate.linking_data import (
    GoldDocument,
    GoldMention,
    LinkingData,
    read_linking,
)
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.titles import plain_title
from openmofi.link import Linker, WordEncoder


@dataclass
class Gold:
    """What the data says of its entities."""

    names: dict[str, list[str]] = field(default_factory=dict)
    """By id, the first one its label."""
    anchors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Surfaces and ids of the fit half."""
    texts: dict[str, str] = field(default_factory=dict)
    """One text of the fit half by id, without the mention."""


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, help="folder for the knowledge bases")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = measure(arguments.data, arguments.work or Path(temporary))
    print(json.dumps(result, indent=2, ensure_ascii=False))


def measure(folder: Path, work: Path) -> dict[str, Any]:
    """Builds the three knowledge bases and returns the figures of each."""
    read = [read_linking(path) for path in sorted((folder / "linking").glob("*.jsonl*"))]
    merged, datasets = with_common_ids(read)
    fit, report = zip(*(halves(data) for data in datasets), strict=True)
    gold = collect(datasets, fit)
    dump = folder / "wikidata" / "sample_items_100.json.bz2"
    sources = write_sources(gold, work)
    started = time.perf_counter()
    linked = KBSettings(preset="full", anchors=str(sources["anchors"]), anchor_min_count=1)
    settings = {"A": KBSettings(preset="full"), "B": linked, "S": linked, "D": linked}
    kbs = {}
    for name, chosen in settings.items():
        build_kb([sources[name], dump], out=work / f"kb-{name}", settings=chosen)
        kbs[name] = KnowledgeBase.open(work / f"kb-{name}")
    figures_of = {
        name: {data.name: both_contexts(kbs[name], data) for data in report} for name in "ABS"
    }
    described = {data.name: descriptions(kbs, data) for data in report}
    return {
        "titles taken for another gold entity's article": merged,
        "kb": {name: kb_size(kb) for name, kb in kbs.items()},
        **figures_of,
        "descriptions": {**described, "all": pooled(list(described.values()))},
        "entities of the sample dump": sampled(kbs["A"], dump, report),
        "seconds": round(time.perf_counter() - started, 1),
    }


# ---- data ---------------------------------------------------------------------------------------


def with_common_ids(read: list[LinkingData]) -> tuple[int, list[LinkingData]]:
    """Replaces ZELDA's titles by ids, and counts those that another dataset's entity takes."""
    bearers: dict[str, set[str]] = defaultdict(set)
    for data in read:
        if data.ids == "kb":
            for document in data.documents:
                for mention in document.required:
                    bearers[mention.label].add(mention.id or "")
    taken: set[str] = set()

    def identify(title: str) -> str:
        title = title.replace("_", " ")
        ids = bearers.get(title, set())
        if len(ids) != 1 or plain_title(title) != title:
            return f"enwiki:{title}"
        taken.add(title)
        return next(iter(ids))

    def translate(mention: GoldMention) -> GoldMention:
        return mention if mention.id is None else replace(mention, id=identify(mention.id))

    datasets = [
        data if data.ids == "kb" else replace(on_mentions(data, translate), ids="kb")
        for data in read
    ]
    return len(taken), datasets


def on_mentions(data: LinkingData, change: Callable[[GoldMention], GoldMention]) -> LinkingData:
    documents = (replace(d, mentions=tuple(change(m) for m in d.mentions)) for d in data.documents)
    return replace(data, documents=tuple(documents))


def halves(data: LinkingData, bit: int = 0) -> tuple[LinkingData, LinkingData]:
    """Returns the documents to fit on and those to report on; another bit halves otherwise."""
    sides: tuple[list[GoldDocument], list[GoldDocument]] = ([], [])
    for document in data.documents:
        digest = hashlib.sha256(f"{data.name}:{document.key}".encode()).digest()
        sides[digest[0] >> bit & 1].append(document)
    fit, report = (replace(data, documents=tuple(side)) for side in sides)
    return fit, report


def collect(datasets: list[LinkingData], fit: tuple[LinkingData, ...]) -> Gold:
    gold = Gold()
    for data in datasets:
        for document in data.documents:
            for mention in document.required:
                known = gold.names.setdefault(mention.id or "", [])
                if mention.label and mention.label not in known:
                    known.append(mention.label)
    for data in fit:
        for document in data.documents:
            for mention in document.required:
                surface = document.text[mention.start : mention.end]
                gold.anchors[surface, mention.id or ""] += 1
                rest = document.text[: mention.start] + " " + document.text[mention.end :]
                gold.texts.setdefault(mention.id or "", " ".join(rest.split()))
    return gold


def write_sources(gold: Gold, work: Path) -> dict[str, Path]:
    """Writes a catalogue for every knowledge base, and the anchors."""
    work.mkdir(parents=True, exist_ok=True)
    paths = {name: work / f"{name}.csv" for name in "ABSD"}
    for name, path in paths.items():
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "name", "aliases", "description"])
            for identifier, names in gold.names.items():
                if names:
                    text = gold.texts.get(identifier, "") if name == "D" else ""
                    aliases = names[1:] + (last_words(names) if name in "SD" else [])
                    plain = "|".join(alias.replace("|", " ") for alias in aliases)
                    rows.writerow([identifier, names[0], plain, text])
    paths["anchors"] = work / "anchors.tsv"
    with paths["anchors"].open("w", encoding="utf-8") as file:
        for (surface, identifier), count in gold.anchors.items():
            file.write(f"{' '.join(surface.split())}\t{identifier}\t{count}\n")
    return paths


def last_words(names: list[str]) -> list[str]:
    """Returns what captions call the bearers of names of several words."""
    lasts = (name.rpartition(",")[0] or name for name in names)  # "John Barrow, 1st Baronet"
    return [name.split()[-1] for name in lasts if len(name.split()) > 1]


# ---- figures ------------------------------------------------------------------------------------


def kb_size(kb: KnowledgeBase) -> dict[str, int]:
    texts = kb.entities(["description"])["description"].to_pylist()
    described = sum(bool(text) for text in texts)
    return {"entities": len(kb), "names": kb.meta["names"], "with a description": described}


def both_contexts(kb: KnowledgeBase, data: LinkingData) -> dict[str, Any]:
    """Returns the figures with the prior alone and with the words of descriptions."""
    alone = evaluate_linking(kb, data)
    words = evaluate_linking(kb, data, encoder=WordEncoder(kb))
    return {
        "documents": alone.documents,
        "mentions": alone.mentions,
        "nil": alone.nil,
        "not_in_kb": alone.not_in_kb,
        "verbatim": rounded(alone.verbatim),
        "recall_at": {k: rounded(share) for k, share in alone.recall_at.items()},
        "prior": figures(alone),
        "words": figures(words),
        "by_ambiguity": {
            name: {"mentions": part.mentions, "accuracy": rounded(part.accuracy)}
            for name, part in words.by_ambiguity.items()
        },
    }


def figures(result: LinkingResult) -> dict[str, float | None]:
    ends = result.end_to_end
    return {
        "accuracy": rounded(result.accuracy),
        "precision": rounded(ends.precision),
        "recall": rounded(ends.recall),
        "f1": rounded(ends.f1),
        "f1_overlap": rounded(result.overlap.f1),
    }


def rounded(value: float) -> float | None:
    return None if value != value else round(value, 4)


def descriptions(kbs: dict[str, KnowledgeBase], data: LinkingData) -> dict[str, Any]:
    """Compares S and D on the mentions all of whose candidates have a description in D."""
    offered, _ = run_linker(Linker(kbs["D"]), data.documents, None, data.name)
    described = set(described_ids(kbs["D"]))
    ambiguous = {
        span
        for span, candidates in offered.items()
        if len(candidates) > 1 and all(c["id"] in described for c in candidates)
    }
    fair = chosen(data, lambda row, m: (row, m.start, m.end) in ambiguous)
    return {
        "mentions": sum(len(d.required) for d in fair.documents),
        "accuracy by prior": accuracy(kbs["S"], fair, None),
        "accuracy by words, names alone": accuracy(kbs["S"], fair, WordEncoder(kbs["S"])),
        "accuracy by words, one text each": accuracy(kbs["D"], fair, WordEncoder(kbs["D"])),
    }


def pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the figures over all mentions of all datasets."""
    total = sum(part["mentions"] for part in parts)
    names = [name for name in parts[0] if name != "mentions"]
    right = {name: sum(part["mentions"] * (part[name] or 0.0) for part in parts) for name in names}
    return {"mentions": total, **{name: rounded(right[name] / total) for name in names}}


def described_ids(kb: KnowledgeBase) -> list[str]:
    rows = kb.entities(["id", "description"]).to_pylist()
    return [row["id"] for row in rows if row["description"]]


def chosen(data: LinkingData, wanted: Callable[[int, GoldMention], bool]) -> LinkingData:
    """Keeps some of the mentions; documents and their numbers stay."""
    documents = (
        replace(d, mentions=tuple(m for m in d.mentions if wanted(row, m)))
        for row, d in enumerate(data.documents)
    )
    return replace(data, documents=tuple(documents))


def accuracy(kb: KnowledgeBase, data: LinkingData, encoder: Any) -> float | None:
    return rounded(evaluate_linking(kb, data, encoder=encoder).accuracy)


def sampled(kb: KnowledgeBase, dump: Path, report: tuple[LinkingData, ...]) -> dict[str, Any]:
    """Returns the figures of mentions whose entity has its real Wikidata description."""
    described = set(described_ids(kb))
    found = {}
    for data in report:
        part = chosen(data, lambda _, m: m.id in described)
        if any(d.mentions for d in part.documents):
            found[data.name] = {
                "mentions": sum(len(d.required) for d in part.documents),
                "accuracy by prior": accuracy(kb, part, None),
                "accuracy by words": accuracy(kb, part, WordEncoder(kb)),
            }
    return {"source": dump.name, "datasets": found}


if __name__ == "__main__":
    main()
