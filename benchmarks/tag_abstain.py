"""Is the tagger wrong as often as asked, of things that it knows and of things it does not?

    python benchmarks/tag_abstain.py DEMO...

Of each finished demo world (`openmofi demo`) the multi-task model's test images, whose truth is
known, are split in two at random, again and again: the one half calibrates, the other is answered.
Strangers are made by taking a fifth of the class rows away; their images then show entities that
the model does not know. Prints a row per world, share of strangers and rate: the rate that came
out, and the share of images that was answered, means over the splits.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.vectors import ModelVectors
from openmofi.files.folders import cache_folder
from openmofi.tag import Tagger
from openmofi.tag.abstain import TagCalibration

RATES = (0.01, 0.02, 0.05, 0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", nargs="+", type=Path)
    parser.add_argument("--splits", type=int, default=50)
    arguments = parser.parse_args()
    for demo in arguments.demos:
        model = demo / "runs/multitask/model"
        tagger, images = Tagger(model, demo / "kb"), open_labelled(demo)
        encoded = ModelVectors(model, device="cpu", cache=cache_folder()).images(
            images.places, "encode"
        )
        labels = np.array(images.labels)[encoded.rows]
        for strangers in (False, True):
            rows = measure(encoded.vectors, labels, tagger, strangers, arguments.splits)
            for row in rows:
                print(json.dumps({"world": demo.name, **row}), flush=True)


def measure(vectors, labels, tagger: Tagger, strangers: bool, splits: int) -> list[dict]:
    rng, found = np.random.default_rng(0), {rate: [] for rate in RATES}
    shares = []
    for _ in range(splits):
        known = np.ones(len(tagger.ids), bool)
        if strangers:
            known[rng.permutation(len(known))[: len(known) // 5]] = False
        ids = [entity for entity, keep in zip(tagger.ids, known, strict=True) if keep]
        entities = tagger.vectors[known]
        first = rng.random(len(labels)) < 0.5
        # Whoever calibrates has images of known entities alone, and a guess at the strangers'
        # share, which here is right.
        mine = first & np.isin(labels, ids)
        calibration = TagCalibration.measure(vectors[mine], labels[mine].tolist(), entities, ids)
        unknown = float(np.mean(~np.isin(labels[~first], ids))) if strangers else 0.0
        shares.append(unknown)
        similarity = vectors[~first] @ entities.T
        best = np.array(ids)[similarity.argmax(1)]
        for rate in RATES:
            answered = similarity.max(1) >= calibration.threshold(rate, unknown=unknown)
            wrong = answered & (best != labels[~first])
            found[rate].append((wrong.sum() / max(answered.sum(), 1), answered.mean()))
    return [
        {
            "strangers": round(float(np.mean(shares)), 3),
            "asked": rate,
            "wrong": round(float(np.mean([w for w, _ in pairs])), 4),
            "answered": round(float(np.mean([a for _, a in pairs])), 3),
        }
        for rate, pairs in found.items()
    ]


if __name__ == "__main__":
    main()
