"""Which of its senses does a noun have? WordNet's examples, linked to WordNet.

    apt install wordnet-base
    python benchmarks/wordnet_senses.py OUT [--wordnet /usr/share/wordnet] [--encoder MODEL]
        [--seeds 0 1 2] [--set epochs=3]

An example in a synset's gloss ("the chef de cuisine's *crane* lifted the beam") that has one of its
lemmas, and this lemma other synsets, is a mention whose truth is known; descriptions are the
glosses without examples. Nouns are halved by the SHA-1 of their lemma: the even half is learnt from
(as openmofi kb fit does), the odd half only reported on. Learnt from are also even verbs,
adjectives and adverbs in their examples, each part of speech with a knowledge base of its own. Only
the lemma of an example counts as annotated.

Accuracy given the span, of the prior, of words as the context, of --encoder as the context, and of
a reader (kb fit --fusion) that starts from --encoder and reads everything, on the linear score of
words. Writes OUT/noun/{even,odd}.jsonl (MELBench's format), OUT/noun/kb, likewise verb, adj and
adv, and OUT/pointer-SEED; prints JSON. Without --encoder, only the data and the first two.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmofi.cli.link import open_linker
from openmofi.config import FusionSettings, KBSettings, LinkSettings, override, parse_assignments
from openmofi.evaluate.linking_data import LinkingData, read_linking
from openmofi.evaluate.linking_fit import examples_in
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker
from openmofi.link.weights import load_link_weights
from openmofi.train.fusion import train_reader
from openmofi.train.fusion_examples import examples_of_group, joined

EXAMPLE = re.compile(r'[;:] "(.*?)"')
ABOVE = ("@", "@i", "&", "\\")
"""Pointers (wninput(5WN)): hypernym, instance of, similar to, pertains to or derived from."""

PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")


@dataclass(frozen=True)
class Synset:
    """One sense, and the lemmas that have it."""

    id: str
    lemmas: list[str]
    gloss: str
    above: list[str]
    """Places of what it is a kind of; of an adjective, what it is similar to or made from."""


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--encoder")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--set", nargs="+", default=[], dest="changes")
    arguments = parser.parse_args()
    out, counts = arguments.out, {}
    for part in PARTS_OF_SPEECH:
        (out / part).mkdir(parents=True, exist_ok=True)
        synsets = read_synsets(arguments.wordnet / f"data.{part}")
        counts[part] = write_examples(synsets, out / part)
        if not (out / part / "kb").is_dir():
            # `kb build` reads WordNet's nouns alone; the others are a catalogue.
            source = arguments.wordnet if part == "noun" else write_catalogue(synsets, out / part)
            build_kb(source, out=out / part / "kb", settings=KBSettings(preset="full"))
    kb = KnowledgeBase.open(out / "noun" / "kb")
    odd = read_linking(out / "noun" / "odd.jsonl")
    words = open_linker(kb, "words")
    result: dict[str, Any] = {
        "mentions": counts,
        "prior": accuracy(Linker(kb), odd),
        "words": accuracy(words, odd),
    }
    if arguments.encoder is not None:
        result["encoder"] = accuracy(open_linker(kb, arguments.encoder), odd)
        result["pointer"] = {
            seed: pointer(kb, out, arguments.encoder, seed, arguments.changes)
            for seed in arguments.seeds
        }
    print(json.dumps(result, indent=1))


def read_synsets(data: Path) -> list[Synset]:
    """Returns the synsets of one of WordNet's data files."""
    synsets = []
    for line in data.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue
        head, gloss = line.split(" | ", 1)
        fields = head.split()
        written = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        lemmas = [lemma.split("(")[0].replace("_", " ") for lemma in written]  # galore(ip)
        pointers = fields[5 + 2 * len(written) :]
        above = [pointers[i + 1] for i, kind in enumerate(pointers) if kind in ABOVE]
        synsets.append(Synset(f"{fields[2]}{fields[0]}", lemmas, gloss, above))
    return synsets


def write_catalogue(synsets: list[Synset], out: Path) -> Path:
    """Writes synsets as a catalogue, with glosses without their examples."""
    with (out / "catalogue.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "name", "aliases", "description", "type"])
        names = {one.id[1:]: one.lemmas[0] for one in synsets}
        for one in synsets:
            meaning = re.split(r'[;:] "', one.gloss)[0]
            kinds = "|".join(names[place] for place in one.above if place in names)
            rows.writerow([one.id, one.lemmas[0], "|".join(one.lemmas[1:]), meaning, kinds])
    return out / "catalogue.csv"


def write_examples(synsets: list[Synset], out: Path) -> dict[str, int]:
    """Writes both halves; returns the number of examples in each."""
    senses = Counter(lemma.lower() for one in synsets for lemma in set(one.lemmas))
    halves: dict[str, list[dict[str, Any]]] = {"even": [], "odd": []}
    for one in synsets:
        for text in EXAMPLE.findall(one.gloss):
            lemma, found = next(
                ((lemma, match) for lemma in one.lemmas if (match := whole_word(lemma, text))),
                ("", None),
            )
            if found is None or senses[lemma.lower()] == 1:
                continue
            half = halves["even" if is_even(lemma) else "odd"]
            example = {"sentence": text, "mentions": [found.group()], "entities": [lemma]}
            half.append({"id": f"{one.id}-{len(half)}", **example, "answer": [one.id]})
    for name, rows in halves.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (out / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return {name: len(rows) for name, rows in halves.items()}


def is_even(lemma: str) -> bool:
    """Returns whether a noun is in the half that is learnt from."""
    return int(hashlib.sha1(lemma.lower().encode()).hexdigest(), 16) % 2 == 0


def whole_word(lemma: str, text: str) -> re.Match[str] | None:
    """Returns where a text has a lemma."""
    return re.search(rf"(?<!\w){re.escape(lemma)}(?!\w)", text, re.IGNORECASE)


def pointer(
    kb: KnowledgeBase, out: Path, encoder: str, seed: int, changes: list[str]
) -> dict[str, Any]:
    """Trains a reader on the even half, and returns its figures on the odd half."""
    folder, started = out / f"pointer-{seed}", time.process_time()
    result: dict[str, Any] = {}
    if not folder.is_dir():
        settings = override(FusionSettings(seed=seed), parse_assignments(changes))
        parts = []
        for part in PARTS_OF_SPEECH:
            linker = open_linker(KnowledgeBase.open(out / part / "kb"), "words")
            even = read_linking(out / part / "even.jsonl")
            texts = [document.text for document in even.documents]
            parts.append(examples_of_group(linker, examples_in(linker, even), texts))
        result["mentions"] = [len(part) for part in parts]
        described = {"data": list(PARTS_OF_SPEECH)}
        where = {"encoder": encoder, "out": folder, "device": "cpu"}
        found = train_reader(
            joined(parts), load_link_weights(), described=described, settings=settings, **where
        )
        result |= {"held out": found.after, "step": found.steps}
        result["CPU seconds of training"] = round(time.process_time() - started)
    everything = LinkSettings(read_above=0)
    linker = open_linker(kb, "words", fusion=folder, settings=everything)
    result["odd"] = accuracy(linker, read_linking(out / "noun" / "odd.jsonl"))
    return result


def accuracy(linker: Linker, data: LinkingData) -> float:
    """Returns the share of mentions whose sense is right, given their spans."""
    examples = examples_in(linker, data)
    return round(float(examples.target[examples.begin].sum() / len(data.documents)), 4)


if __name__ == "__main__":
    main()
