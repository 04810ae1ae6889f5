"""Recall of labels at equal precision: text first against text and image together.

    python benchmarks/labels_at_equal_precision.py demo [MORE_DEMOS...]

For each demo the threshold on the evidence (the joint score, or clip_z) is swept over all its
values; printed is the largest recall at which the labels are at least that precise.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from calibrated_rate import read_truth

from openmofi.select.blocks import label_blocks
from openmofi.select.choose import choose
from openmofi.select.learn import weigh
from openmofi.select.sample import sample_mentions
from openmofi.shards import committed_files

_PRECISIONS = (0.93, 0.94, 0.95, 0.96, 0.97)


def main() -> None:
    """Prints one JSON object per demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", nargs="+", type=Path)
    for demo in parser.parse_args().demos:
        truth = demo / "truth.parquet"
        found = {order: recalls(demo / "i2e", truth, order) for order in ("text-first", "joint")}
        print(json.dumps({"demo": str(demo), "recall_at_precision": found}))


def recalls(i2e: Path, truth: Path, order: str) -> dict[str, float]:
    """Returns the recall at each precision; truth as of calibrated_rate.py."""
    shown, named = read_truth(truth)
    files = committed_files(i2e)
    weights = None
    if order == "joint":
        weights = weigh(sample_mentions(label_blocks(files), order)).weights
    best: dict[tuple[str, str], float] = {}
    for path in files:
        keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
        choice = choose(path, order, weights)
        chosen = zip(choice.row, choice.ids.to_pylist(), choice.evidence, strict=True)
        for row, entity, evidence in chosen:
            label = (keys[row], entity)
            best[label] = max(best.get(label, -np.inf), float(evidence))
    labels = sorted(best, key=lambda label: -best[label])
    right = np.cumsum([shown[key] == entity for key, entity in labels])
    precision = right / np.arange(1, len(labels) + 1)
    recall = np.cumsum([label in named for label in labels]) / len(named)
    return {
        f"{wanted:.2f}": round(float(recall[precision >= wanted].max(initial=0.0)), 3)
        for wanted in _PRECISIONS
    }


if __name__ == "__main__":
    main()
