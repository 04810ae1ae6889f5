"""What decides between the senses of a name: the demo world's captions, text alone against context.

    python benchmarks/ambiguous_captions.py [--seeds 1 2 3]

Writes captions as the demo world does, 80 for each of its 98 entities, without drawing the photos,
so that they are like those of the demo with the same seed, not the same. The knowledge base is the
demo's: flags, and what bears the same names. Truth is what a caption names, as its writer meant it.

    found      share of the named things that are the best candidate of a mention
    precision  share of the mentions whose best candidate is named

By kind of caption, see openmofi/demo/captions.py; «ambiguous» ones do not tell, by design: there
the most common sense is the most that a text can give. Every row uses some terms of the score, with
weights set by hand and with the package's, which linking_weights.py fitted. Every name found is
linked, but for the last row, which leaves out mentions less probable than 1/2.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openmofi.config import LinkSettings
from openmofi.demo.captions import Caption, draw_caption
from openmofi.demo.dump import write_catalogue, write_dump
from openmofi.demo.entities import WORLD
from openmofi.demo.senses import SENSES
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.weights import LinkWeights, load_link_weights

_PER_ENTITY = 80
_TERMS: dict[str, tuple[str, ...]] = {
    "prior": ("prior",),
    "prior, case": ("prior", "case"),
    "prior, case, context": ("prior", "case", "context"),
    "prior, case, coherence": ("prior", "case", "coherence"),
    "all": ("prior", "case", "context", "coherence", "type"),
}

BY_HAND = LinkWeights(
    prior=1.0,
    context=8.0,
    coherence=2.0,
    type=1.0,
    linkability=1.0,
    case=1.0,
    detected=2.0,
    nil=-2.0,
)
"""A cosine of .1 outweighs a factor of two in popularity; a name without other evidence is one nine
times out of ten."""


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    choices = {"by hand": BY_HAND, "package": load_link_weights()}
    with tempfile.TemporaryDirectory() as folder:
        kb = demo_kb(Path(folder))
        captions = [caption for seed in arguments.seeds for caption in captions_of(seed)]
        figures = {name: by_terms(kb, weights, captions) for name, weights in choices.items()}
    result = {"seeds": arguments.seeds, "captions": len(captions), "named": named(captions)}
    print(json.dumps({**result, "figures": figures}, indent=2))


def by_terms(kb: KnowledgeBase, weights: LinkWeights, captions: list[Caption]) -> dict[str, Any]:
    """Returns the figures of every choice of terms."""
    figures = {
        name: by_kind(linker_of(kb, weights, terms), captions) for name, terms in _TERMS.items()
    }
    sure = linker_of(kb, weights, _TERMS["all"], min_score=0.5)
    return {**figures, "all, min_score 0.5": by_kind(sure, captions)}


def demo_kb(folder: Path) -> KnowledgeBase:
    """Builds the knowledge base of the demo's full world."""
    countries = [entity for entity in WORLD if entity.kind == "country"]
    signals = [entity for entity in WORLD if entity.kind == "signal"]
    write_dump(folder / "dump.json.gz", countries=countries, senses=SENSES)
    write_catalogue(folder / "signals.csv", signals=signals)
    build_kb([folder / "dump.json.gz", folder / "signals.csv"], out=folder / "kb-demo")
    return KnowledgeBase.open(folder / "kb-demo")


def captions_of(seed: int) -> list[Caption]:
    """Writes captions for photos of every entity; every one has a generator of its own."""
    return [
        draw_caption(entity, np.random.default_rng([seed, number, index]), others=WORLD)
        for number, entity in enumerate(WORLD)
        for index in range(_PER_ENTITY)
    ]


def linker_of(
    kb: KnowledgeBase, weights: LinkWeights, terms: tuple[str, ...], min_score: float = 0.0
) -> Linker:
    """Returns a linker that uses no other terms than these."""
    unused: dict[str, Any] = {name: 0.0 for name in _TERMS["all"] if name not in terms}
    settings = LinkSettings(min_score=min_score)
    return Linker(
        kb, encoder=WordEncoder(kb), weights=replace(weights, **unused), settings=settings
    )


def named(captions: list[Caption]) -> dict[str, int]:
    """Counts the named things by kind of caption."""
    counts: dict[str, int] = defaultdict(int)
    for caption in captions:
        counts[caption.kind] += len(caption.mentioned)
    return dict(counts)


def by_kind(linker: Linker, captions: list[Caption]) -> dict[str, Any]:
    """Returns the figures of every kind of caption and of all."""
    best: list[list[str]] = [[] for _ in captions]
    found = linker.link([caption.text for caption in captions])
    for row, identifier in zip(found["row"].to_pylist(), found["id"].to_pylist(), strict=True):
        best[row].append(identifier)
    kinds = dict.fromkeys(caption.kind for caption in captions)
    pairs = list(zip(captions, best, strict=True))
    parts = {kind: [(c, ids) for c, ids in pairs if c.kind == kind] for kind in sorted(kinds)}
    return {kind: shares(part) for kind, part in {**parts, "all": pairs}.items()}


def shares(pairs: list[tuple[Caption, list[str]]]) -> dict[str, float | None]:
    """Returns what is found of what captions name, and how much of what is found they name."""
    named = [identifier in ids for caption, ids in pairs for identifier in caption.mentioned]
    found = [identifier in caption.mentioned for caption, ids in pairs for identifier in ids]
    return {"found": share(named), "precision": share(found)}


def share(hits: list[bool]) -> float | None:
    """Returns the share of hits; None of nothing."""
    return round(sum(hits) / len(hits), 4) if hits else None


if __name__ == "__main__":
    main()
