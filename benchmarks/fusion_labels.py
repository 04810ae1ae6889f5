"""Are labels better where a reader of hard mentions has read the captions?

    python benchmarks/fusion_labels.py DEMO --reader READER --out FOLDER

DEMO is the output of `openmofi demo`, whose photos are labelled again by its recipe clip, without
and with READER (of fusion_reading.py, which was trained on captions of another seed). Precision,
recall and F1 as in the demo's results.json, by order and asked rate. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from calibrated_rate import read_truth

from openmofi.config import LabelSettings, SelectSettings
from openmofi.evaluate.metrics import label_scores
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.select import select

RATES = (0.01, 0.05)


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    demo, out = arguments.demo, arguments.out
    kb = build_kb([demo / "dump.json.gz", demo / "signals.csv"], out=out / "kb").out
    shown, named = read_truth(demo / "truth.parquet")
    result: dict[str, Any] = {}
    for name, reader in (("linear", None), ("reader", str(arguments.reader))):
        started = time.process_time()
        settings = LabelSettings(workers=1, fusion=reader)
        model, i2e = str(demo / "runs" / "clip" / "model"), out / name
        label(demo / "shards", kb=kb, model=model, out=i2e, settings=settings)
        result[name] = {"CPU seconds": round(time.process_time() - started)}
        result[name] |= label_figures(i2e, shown, named)
    print(json.dumps(result, indent=1))


def label_figures(
    i2e: Path, shown: dict[str, str], named: set[tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Returns precision, recall and F1 by order and asked rate.

    Args:
        i2e: output of `label`, which gets selections.
        shown: what each image shows.
        named: the labels that captions make possible.
    """
    found: dict[str, dict[str, float]] = {}
    for order in ("text-first", "joint"):
        for rate in RATES:
            chosen = SelectSettings(order=order, min_images=1, false_label_rate=rate)
            kept = select(i2e, name=f"{order}-{rate}", settings=chosen)
            ids = pq.read_table(kept.out / "vocabulary.parquet")["id"].to_pylist()
            table = pq.read_table(kept.out / "keep.parquet", columns=["key", "classes"])
            labels = {(row["key"], ids[c]) for row in table.to_pylist() for c in row["classes"]}
            scores = label_scores(labels, set(shown.items()), named)
            found[f"{order} {rate}"] = {n: round(v, 4) for n, v in scores.items()}
    return found


if __name__ == "__main__":
    main()
