"""What do images teach the reading of captions, where nobody annotated anything?

    python benchmarks/images_teach_texts.py DEMO --model MODEL --encoder TEXT_ENCODER --out FOLDER

DEMO is the output of `openmofi demo`; its photos are labelled by MODEL, a dual encoder that should
not have learnt their captions, such as runs/clip/model of a demo with another seed. From these
labels `kb fit` learns weights of the linear score, and a reader that starts from TEXT_ENCODER.

Reported is the share of the named things that are linked right in captions like the demo's, drawn
anew (ambiguous_captions.py), whose things its knowledge base holds; by kind, of all, and of things
that no photo shows («view from the hotel»: the building, not the flag). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ambiguous_captions import by_kind, captions_of

from openmofi.config import FusionSettings, LabelSettings, LinkSettings, override, parse_assignments
from openmofi.demo.captions import Caption
from openmofi.demo.entities import WORLD
from openmofi.evaluate.linking_fit import fit_on
from openmofi.evaluate.linking_images import texts_of_images
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.label import label
from openmofi.label.fusion import open_fusion
from openmofi.link import Linker, WordEncoder
from openmofi.train.fusion import fit_fusion

_SHOWN = {entity.id for entity in WORLD}


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1, help="of the captions")
    parser.add_argument("--set", nargs="+", default=[], dest="changes")
    arguments = parser.parse_args()
    demo, out = arguments.demo, arguments.out
    kb = KnowledgeBase.open(
        build_kb([demo / "dump.json.gz", demo / "signals.csv"], out=out / "kb").out
    )
    settings = LabelSettings(workers=1)
    label(demo / "shards", kb=kb.path, model=arguments.model, out=out / "i2e", settings=settings)
    taught = texts_of_images(out / "i2e")
    captions = [
        caption
        for caption in captions_of(arguments.seed)
        if all(kb.row_of(identifier) is not None for identifier in caption.mentioned)
    ]
    words = Linker(kb, encoder=WordEncoder(kb))
    fit = fit_on(words, [taught])
    weighted = Linker(kb, encoder=WordEncoder(kb), weights=fit.weights)
    result: dict[str, Any] = {
        "captions": {"with images": len(taught.documents), "reported": len(captions)},
        "mentions": fit.mentions,
        "linear score": shares(words, captions),
        "its weights": shares(weighted, captions),
    }
    reader, started = out / "reader", time.process_time()
    chosen = override(FusionSettings(), parse_assignments(arguments.changes))
    summary = fit_fusion(
        words, [taught], encoder=arguments.encoder, out=reader, settings=chosen, device="cpu"
    )
    result["training"] = {"CPU seconds": round(time.process_time() - started)} | {
        name: value for name, value in asdict(summary).items() if name != "out"
    }
    for above in (0.1, 0.0):
        linker = Linker(
            kb,
            encoder=WordEncoder(kb),
            fusion=open_fusion(reader, kb, reader, device="cpu"),
            settings=LinkSettings(read_above=above),
        )
        result[f"reader above {above}"] = shares(linker, captions)
    print(json.dumps(result, indent=1))


def shares(linker: Linker, captions: list[Caption]) -> dict[str, Any]:
    """Returns the shares of the named things that are found."""
    found: dict[str, Any] = {kind: one["found"] for kind, one in by_kind(linker, captions).items()}
    linked = linker.link([caption.text for caption in captions])
    pairs = set(zip(linked["row"].to_pylist(), linked["id"].to_pylist(), strict=True))
    unseen = [
        (row, identifier) in pairs
        for row, caption in enumerate(captions)
        for identifier in caption.mentioned
        if identifier not in _SHOWN
    ]
    share = round(sum(unseen) / len(unseen), 4) if unseen else None
    return found | {"shown by no photo": {"mentions": len(unseen), "found": share}}


if __name__ == "__main__":
    main()
