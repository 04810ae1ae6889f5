"""How often the bounds of `audit` hold, and how many checks they take on the long tail.

    python benchmarks/audit_coverage.py [SELECTION:TRUTH ...] [--audits 200] [--checks 300]
        [--widths .15 .1] [--worlds NAME ...]

Draws audits of made-up selections, whose truth is known, with the code of the verb, each with a
seed of its own, and answers every draw by the truth. SELECTION is an output of `openmofi select`,
TRUTH a Parquet file with the columns key and shown, such as the demo's. A bound never falls, so
that the last one is the highest of all times: an audit holds if even that is not above the truth.

Prints a line of JSON per world: the precision; the share of audits whose bound holds, overall, for
the worst stratum, and for all strata at once by the bounds that claim so; the mean bound of all
labels and of the long tail after --checks; the same of labels drawn uniformly, with the same bets;
and the median number of checks until the bound of the long tail is within a width of the truth, of
both, and their ratio.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.review.audit.bound import CellTable, error_bounds, payoffs
from openmofi.review.audit.draws import draw
from openmofi.review.audit.result import bounds
from openmofi.review.audit.strata import Strata, find_bands, read_labels
from openmofi.schema import VOCABULARY
from openmofi.select.digest import selection_digest

_LONGEST = 6_000
"""Checks after which the wait for a width ends."""


@dataclass(frozen=True)
class Known:
    """A selection whose truth is known; one element per label."""

    folder: Path
    right: np.ndarray
    cell: np.ndarray
    row_of_label: np.ndarray
    entity: list[str]

    def is_right(self) -> dict[tuple[int, str], bool]:
        names = zip(self.row_of_label.tolist(), self.entity, strict=True)
        return dict(zip(names, self.right.tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("selections", nargs="*")
    parser.add_argument("--audits", type=int, default=200)
    parser.add_argument("--checks", type=int, default=300)
    parser.add_argument("--widths", type=float, nargs="+", default=[0.15, 0.1])
    parser.add_argument("--worlds", nargs="*", choices=WORLDS, default=list(WORLDS))
    options = parser.parse_args()
    for name in options.worlds:
        with TemporaryDirectory() as folder:
            known = made_up(Path(folder), *WORLDS[name])
            print(json.dumps({"world": name} | measure(known, options)), flush=True)
    for place in options.selections:
        selection, _, truth = place.partition(":")
        known = of_demo(Path(selection), Path(truth))
        print(json.dumps({"world": place} | measure(known, options)), flush=True)


# ---- worlds: what is wrong, by score, place in the vocabulary (0 = most frequent) and source -----

Wrong = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
WORLDS: dict[str, tuple[int, Wrong]] = {
    "as the scores say": (50_000, lambda score, place, source: 1 - score),
    "scores say nothing": (50_000, lambda score, place, source: np.full(len(score), 0.05)),
    "the surest are wrong": (
        50_000,
        lambda score, place, source: np.where(score > 0.99, 0.1, 0.01),
    ),
    "a rotten tail": (50_000, lambda score, place, source: np.where(place > 0.9, 0.4, 0.02)),
    "a rotten source": (50_000, lambda score, place, source: np.where(source == 2, 0.6, 0.01)),
    "hardly an error": (50_000, lambda score, place, source: np.full(len(score), 0.002)),
    "half is wrong": (50_000, lambda score, place, source: np.full(len(score), 0.5)),
    "few labels": (400, lambda score, place, source: 1 - score),
}


def made_up(folder: Path, num_labels: int, wrong: Wrong) -> Known:
    """Writes a selection with entities as uneven as words, three sources, and skewed scores."""
    rng = np.random.default_rng(7)
    num_entities = num_labels // 25
    drawn = rng.choice(num_entities, num_labels, p=_zipf(num_entities))
    _, classes, images = np.unique(drawn, return_inverse=True, return_counts=True)
    order = np.argsort(-images, kind="stable")
    images, classes = images[order], np.argsort(order)[classes]
    score = 1 - rng.beta(0.3, 8, num_labels)
    place = (np.cumsum(images) - images / 2)[classes] / num_labels
    source = rng.choice(3, num_labels, p=[0.6, 0.3, 0.1])
    right = rng.random(num_labels) >= wrong(score, place, source)
    keep = {
        "key": [f"{i}" for i in range(num_labels)],
        "shard": pa.repeat("0", num_labels),
        "path": pa.repeat("", num_labels),
        "caption": pa.repeat("", num_labels),
        "offset": np.arange(num_labels),
        "size": np.ones(num_labels, np.int64),
        "url": [f"https://{host}.example/{i}" for i, host in enumerate(source)],
        "classes": pa.array([[c] for c in classes.tolist()], pa.list_(pa.int32())),
        "scores": pa.array([[s] for s in score.tolist()], pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(keep), folder / "keep.parquet")
    ids = [f"E{i}" for i in range(len(images))]
    vocabulary = {"id": ids, "label": ids, "description": ids, "images": images}
    pq.write_table(pa.table(vocabulary, schema=VOCABULARY), folder / "vocabulary.parquet")
    return known(folder, right)


def _zipf(count: int) -> np.ndarray:
    weight = 1 / np.arange(1, count + 1)
    return weight / weight.sum()


def of_demo(selection: Path, truth: Path) -> Known:
    shown = {row["key"]: row["shown"] for row in pq.read_table(truth).to_pylist()}
    ids = pq.read_table(selection / "vocabulary.parquet")["id"].to_pylist()
    rows = pq.read_table(selection / "keep.parquet", columns=["key", "classes"]).to_pylist()
    right = [shown[row["key"]] == ids[c] for row in rows for c in row["classes"]]
    return known(selection, np.array(right))


def known(folder: Path, right: np.ndarray) -> Known:
    vocabulary = pq.read_table(folder / "vocabulary.parquet")
    ids = vocabulary["id"].to_pylist()
    bands, _ = find_bands(folder, vocabulary["images"].to_numpy())
    labels = list(read_labels(folder))
    cell = np.concatenate([bands.cells(batch) for batch in labels])
    row = np.concatenate([batch.row for batch in labels])
    return Known(folder, right, cell, row, [ids[c] for b in labels for c in b.klass.tolist()])


# ---- audits ---------------------------------------------------------------------------------


def measure(known: Known, options: argparse.Namespace) -> dict:
    digest, is_right = selection_digest(known.folder), known.is_right()
    holds, together, reached, last = [], [], [], []
    rng = np.random.default_rng(0)
    for seed in range(options.audits):
        strata, draws = draw(known.folder, digest, seed=seed, checks=_LONGEST // 2)
        cells = np.array([d.cell for d in draws])
        wrong = np.array([not is_right[d.row, d.entity] for d in draws])
        answers = ["no" if w else "yes" for w in wrong[: options.checks]]
        groups = strata.all()
        truth = np.array([known.right[group.cells[known.cell]].mean() for group in groups])
        found = bounds(strata, cells.tolist(), answers, 0.95)
        holds.append([b.at_least <= t + 1e-9 for b, t in zip(found, truth, strict=True)])
        together.append(all(b.together <= t + 1e-9 for b, t in zip(found, truth, strict=True)))
        tail = next((g.cells for g in groups if g.name.startswith("long tail")), None)
        if tail is not None:
            even = rng.permutation(len(known.right))
            even_wrong, in_tail = ~known.right[even], tail[known.cell[even]]
            last.append(
                [
                    found[0].at_least,
                    1 - bound_of(len(even), even_wrong[: options.checks])[-1],
                    next(b.at_least for b in found if b.name.startswith("long tail")),
                    1
                    - bound_of(
                        in_tail.sum(), even_wrong[: options.checks][in_tail[: options.checks]]
                    )[-1],
                ]
            )
            right = known.right[tail[known.cell]].mean()
            mine = waits(strata, tail, cells, wrong, 1 - right, options.widths)
            others = even_waits(even_wrong, in_tail, 1 - right, options.widths)
            reached.append(mine + others)
    shares = np.mean(holds, 0)
    result = {
        "labels": len(known.right),
        "precision": round(float(known.right.mean()), 4),
        "audits": options.audits,
        "strata": len(shares),
        "holds": round(float(shares[0]), 4),
        "holds_in_the_worst_stratum": round(float(shares.min()), 4),
        "all_at_once": round(float(np.mean(together)), 4),
    }
    if not reached:
        return result
    names = "audit", "uniform", "audit_tail", "uniform_tail"
    result |= {
        "tail_labels": int(tail[known.cell].sum()),
        "tail_precision": round(float(right), 4),
        "bound": {n: round(float(b), 4) for n, b in zip(names, np.mean(last, 0), strict=True)},
    }
    medians = np.median(reached, 0)
    num = len(options.widths)
    for i, width in enumerate(options.widths):
        mine, others = float(medians[i]), float(medians[num + i])
        waited = {"audit": mine, "uniform": others, "ratio": round(mine / others, 3)}
        result[f"checks_until_{width:g}"] = waited
    return result


def bound_of(num_labels: int, wrong: np.ndarray) -> np.ndarray:
    """Returns the error bounds of labels drawn uniformly without replacement."""
    cells = CellTable(np.array([num_labels]), np.ones(1))
    found = payoffs(cells, np.ones(1, bool), np.zeros(len(wrong), int), wrong)
    return np.r_[1.0, error_bounds(found, 0.05)]


def waits(
    strata: Strata,
    tail: np.ndarray,
    cells: np.ndarray,
    wrong: np.ndarray,
    error: float,
    widths: list[float],
) -> list[int]:
    inside = np.flatnonzero(tail[cells])
    found = payoffs(strata.table, tail, cells[inside], wrong[inside])
    return _first(error_bounds(found, 0.05), inside, error, widths)


def even_waits(
    wrong: np.ndarray, in_tail: np.ndarray, error: float, widths: list[float]
) -> list[int]:
    inside = np.flatnonzero(in_tail[:_LONGEST])
    return _first(bound_of(in_tail.sum(), wrong[inside])[1:], inside, error, widths)


def _first(found: np.ndarray, at: np.ndarray, error: float, widths: list[float]) -> list[int]:
    """Returns how many checks it took until the bound was within each width of the truth."""
    near = [np.flatnonzero(found <= error + width) for width in widths]
    return [int(at[n[0]]) + 1 if len(n) else _LONGEST for n in near]


if __name__ == "__main__":
    main()
