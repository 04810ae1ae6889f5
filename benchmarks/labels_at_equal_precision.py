"""Recall of the demo's labels at equal precision: text first against text and picture together.

    python benchmarks/labels_at_equal_precision.py demo [MORE_DEMOS...]

For each demo the threshold on clip_z is swept over all its values; printed is the largest recall
at which the labels are at least that precise.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from openmofi.select.choose import choose
from openmofi.shards import committed_files

_PRECISIONS = (0.93, 0.94, 0.95, 0.96, 0.97)


def main() -> None:
    """Prints one JSON object per demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demos", nargs="+", type=Path)
    for demo in parser.parse_args().demos:
        recall = {order: _recalls(demo, order) for order in ("text-first", "joint")}
        print(json.dumps({"demo": str(demo), "recall_at_precision": recall}))


def _recalls(demo: Path, order: str) -> dict[str, float]:
    rows = pq.read_table(demo / "truth.parquet", filters=[("split", "=", "train")]).to_pylist()
    shown = {row["key"]: row["shown"] for row in rows}
    named = {(row["key"], row["shown"]) for row in rows if row["shown"] in row["mentioned"]}
    best: dict[tuple[str, str], float] = {}
    for path in committed_files(demo / "i2e"):
        keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
        choice = choose(path, order)
        for row, entity, z in zip(choice.row, choice.ids.to_pylist(), choice.clip_z, strict=True):
            label = (keys[row], entity)
            best[label] = max(best.get(label, -np.inf), float(z))
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
