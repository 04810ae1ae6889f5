"""The false-label rate that was asked of `select`, and the one that comes out.

    python benchmarks/calibrated_rate.py I2E:TRUTH [I2E:TRUTH ...] [--rates .01 .02 .05 .1]
        [--priors images]

I2E is an output of `openmofi label`; TRUTH a Parquet file with the columns key and shown (such as a
demo's truth.parquet). Prints JSON: per job and rate the true rate, the labels kept and, where
TRUTH has a column mentioned, their recall; once for the joint score and once for text first.
"""

import argparse
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from openmofi.config import SelectSettings
from openmofi.select import select

_NAME = "calibrated-rate"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--rates", nargs="+", type=float, default=[0.01, 0.02, 0.05, 0.1])
    parser.add_argument("--priors", choices=("labels", "images"), default="labels")
    arguments = parser.parse_args()
    for job in arguments.jobs:
        i2e, _, truth = job.partition(":")
        shown, named = read_truth(Path(truth))
        for order in ("joint", "text-first") if arguments.priors == "labels" else ("joint",):
            given = order, arguments.priors, shown, named
            rates = {f"{rate:g}": measure(Path(i2e), rate, *given) for rate in arguments.rates}
            print(json.dumps({"i2e": i2e, "order": order, "asked": rates}), flush=True)


def read_truth(path: Path) -> tuple[dict[str, str], set[tuple[str, str]]]:
    """Returns (what each image shows, the labels that captions make possible)."""
    rows = pq.read_table(path).to_pylist()
    shown = {row["key"]: row["shown"] for row in rows if row.get("split", "train") == "train"}
    named = {
        (row["key"], row["shown"])
        for row in rows
        if row["key"] in shown and row["shown"] in row.get("mentioned", ())
    }
    return shown, named


def measure(
    i2e: Path,
    rate: float,
    order: str,
    priors: str,
    shown: dict[str, str],
    named: set[tuple[str, str]],
) -> dict[str, float]:
    settings = SelectSettings(
        order=order, priors=priors, false_label_rate=rate, min_images=1, duplicates="keep"
    )
    summary = select(i2e, name=_NAME, settings=settings)
    ids = pq.read_table(summary.out / "vocabulary.parquet")["id"].to_pylist()
    keep = pq.read_table(summary.out / "keep.parquet", columns=["key", "classes"]).to_pylist()
    labels = {(row["key"], ids[c]) for row in keep for c in row["classes"]}
    shutil.rmtree(summary.out)
    wrong = sum(shown[key] != entity for key, entity in labels) / len(labels)
    figures = {"true": round(wrong, 4), "labels": len(labels)}
    assert summary.calibration is not None
    figures["estimated"] = round(summary.calibration.estimated_false_label_rate, 4)
    if named:
        figures["recall"] = round(len(labels & named) / len(named), 4)
    return figures


if __name__ == "__main__":
    main()
