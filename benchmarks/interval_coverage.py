"""How often the true share of wrong labels lies in the interval that `select` gives.

    python benchmarks/interval_coverage.py I2E:TRUTH [I2E:TRUTH ...] [--sizes 100 300 1000]
        [--samples 200] [--rates .02 .05]

I2E is an output of `openmofi label`; TRUTH a Parquet file with the columns key and shown. Draws
samples of the pairs, fits the weights and the threshold to each, and compares with the truth. No
image is looked at again, so the background is that of the whole job. Prints a row of Markdown per
job, size and rate: the mean estimate and its interval, the mean true rate, and the shares of the
samples in which that lies inside, below and above. Seconds for each size up to 1,000.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from calibrated_rate import read_truth

from openmofi.label.joint_weights import fit_weights
from openmofi.select.calibrate import calibrate
from openmofi.select.choose import ScoredCandidates, best_candidates, read_mentions
from openmofi.select.evidence import EvidenceBlock, LabelEvidence
from openmofi.shards import committed_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--sizes", nargs="+", type=int, default=[100, 300, 1000])
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.02, 0.05])
    arguments = parser.parse_args()
    print("| labels | pairs | asked | estimated | interval | true | inside | below | above |")
    print("|---|---|---|---|---|---|---|---|---|")
    for job in arguments.jobs:
        i2e, _, truth = job.partition(":")
        rows, num_pairs = read_rows(Path(i2e), Path(truth))
        for size in arguments.sizes:
            rng = np.random.default_rng(size)
            drawn = [
                one_sample(rows, num_pairs, size, arguments.rates, rng)
                for _ in range(arguments.samples)
            ]
            for rate, found in zip(arguments.rates, np.swapaxes(drawn, 0, 1), strict=True):
                print_row(f"{i2e} | {size} | {rate:g}", found)


def read_rows(i2e: Path, truth: Path) -> tuple[list[dict[str, np.ndarray]], int]:
    """Returns the candidates of each image that has any, and the number of pairs."""
    shown, _ = read_truth(truth)
    found, num_pairs = [], 0
    for path in committed_files(i2e):
        part = read_mentions(path, "joint")
        keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
        num_pairs += len(keys)
        ids = part.ids.cast(pa.string()).to_pylist()
        right = [shown[keys[row]] == entity for row, entity in zip(part.row, ids, strict=True)]
        mention = np.searchsorted(part.begins, np.arange(len(part.row)), "right")
        columns = {"text": part.text, "clip_z": part.clip_z, "clip_z_other": part.clip_z_other}
        columns |= {"mention": mention, "right": np.array(right)}
        cuts = np.flatnonzero(np.diff(part.row)) + 1
        parts = [np.split(column, cuts) for column in columns.values()]
        found += [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]
    return found, num_pairs


def one_sample(
    rows: list, num_pairs: int, size: int, rates: list[float], rng: np.random.Generator
) -> list[tuple[float, ...]]:
    """Returns (estimated, low, high, true) at each rate."""
    drawn = rng.choice(num_pairs, size, replace=False)
    mine = [rows[i] for i in drawn if i < len(rows)]  # the others have no candidates
    part = {name: np.concatenate([row[name] for row in mine]) for name in mine[0]}
    image = np.repeat(np.arange(len(mine)), [len(row["text"]) for row in mine])
    changed = (image[1:] != image[:-1]) | (part["mention"][1:] != part["mention"][:-1])
    begins = np.flatnonzero(np.r_[True, changed])
    columns = [part[name] for name in ("text", "clip_z", "clip_z_other")]
    fitted = fit_weights(*columns, begins, image=image[begins])
    found = ScoredCandidates(image, None, begins, *columns)
    own, others = best_candidates(found, "joint", fitted.weights)
    results = []
    with TemporaryDirectory() as folder:
        evidence = LabelEvidence(Path(folder) / "evidence")
        evidence.add(EvidenceBlock(own.evidence, others, own.confused, image[begins]))
        for rate in rates:
            answer = calibrate(
                evidence,
                false_label_rate=rate,
                unshown_share=fitted.unshown_share,
                unshown_error=fitted.unshown_error,
            )
            kept = own.evidence >= answer.threshold
            wrong = 1 - part["right"][own.best][kept].mean()
            estimate = answer.estimated_false_label_rate
            results.append((estimate, answer.low_rate, answer.high_rate, float(wrong)))
    return results


def print_row(place: str, found: np.ndarray) -> None:
    _, low, high, true = found.T
    below, above = (true < low - 1e-12).mean(), (true > high + 1e-12).mean()
    rate, least, most, wrong = (f"{mean:.3f}".lstrip("0") for mean in found.mean(0))
    shares = (f"{share:.2f}" for share in (1 - below - above, below, above))
    print(f"| {place} | {rate} | {least} to {most} | {wrong} | {' | '.join(shares)} |", flush=True)


if __name__ == "__main__":
    main()
