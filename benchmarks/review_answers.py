"""What do fifty answers do to labels whose truth is known?

    python benchmarks/review_answers.py NAME=I2E:TRUTH [...] [--answers 50] [--rates .05]

I2E is an output of `openmofi label`, which is copied and left as it is; TRUTH a Parquet file with
the columns key and shown (such as a demo's truth.parquet), or devices.csv, with I2E a way of
device_readers.py: then the names that script judges, and vendors where titles begin with them, are
known, others are skipped and not counted. The answerer is the truth: it says what is shown. Asked
is what the queue of `openmofi review` puts first, and again after every answer; or, as the
comparison, kept labels at random, or the least sure ones. Then `select` decides again. Prints JSON:
wrong and right labels before and after, the share of the wrong ones that went, and of it what the
answered labels alone account for.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from device_readers import Titles
from real_world import VendorTitles, divide_devices

from openmofi.config import SelectSettings
from openmofi.corrections.answers import add_answers, answers_path, new_answer
from openmofi.kb import KnowledgeBase
from openmofi.review.pool import Pool, pool_of
from openmofi.review.queue import Queue
from openmofi.select import select
from openmofi.select.selection import Selection

Right = Callable[[dict[str, Any], str], bool | None]
"""Of a row of the labels and an id: whether the image shows it; None: nobody knows."""


def main() -> None:
    """Prints one JSON object per job, rate and way of asking."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+")
    parser.add_argument("--answers", type=int, default=50)
    parser.add_argument("--rates", nargs="+", type=float, default=[0.05])
    parser.add_argument("--ways", nargs="+", default=["queue", "random", "doubtful"])
    arguments = parser.parse_args()
    for job in arguments.jobs:
        name, _, paths = job.partition("=")
        i2e, _, truth = paths.partition(":")
        right = right_by(Path(truth), Path(i2e))
        for rate in arguments.rates:
            for way in arguments.ways:
                found = answered(Path(i2e), right, rate, way, arguments.answers)
                print(json.dumps({"job": name, "rate": rate, "asked": way, **found}), flush=True)


def right_by(truth: Path, i2e: Path) -> Right:
    """Returns what tells whether an image shows an entity."""
    if truth.suffix == ".csv":
        return right_device(truth, i2e)
    shown = {row["key"]: row["shown"] for row in pq.read_table(truth).to_pylist()}
    return lambda row, entity: shown.get(row["key"]) == entity


def right_device(photos: Path, i2e: Path) -> Right:
    """Returns the same for titles of devices, in a folder `devices-seed-N` of device_readers.py."""
    seed = int(i2e.parent.name.rpartition("-")[2])
    with tempfile.TemporaryDirectory() as out:
        rows = divide_devices(photos, seed, Path(out))["labelled"]
    kb = KnowledgeBase.open(json.loads((i2e / "run.json").read_text())["kb_path"])
    titles, vendors = Titles.read(i2e, rows), VendorTitles.read(i2e, rows, kb)

    def right(row: dict[str, Any], entity: str) -> bool | None:
        path = "/" + row["path"].lstrip("/")
        if (path, entity) in titles.meant:
            return (path, entity) in titles.shown
        brands = vendors.brands[vendors.vendor_of[path]]
        if (path, entity) in vendors.begins and brands:
            return entity in brands
        return None

    return right


def answered(i2e: Path, right: Right, rate: float, way: str, count: int) -> dict[str, Any]:
    """Returns the labels before and after."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary) / "i2e"
        shutil.copytree(i2e, copy, ignore=shutil.ignore_patterns("select", "corrections.jsonl"))
        settings = SelectSettings(false_label_rate=rate, min_images=1, duplicates="keep")
        summary = select(copy, settings=settings)
        selection = Selection(copy, "default")
        before = judged(selection, right)
        pool = pool_of(selection)
        started = time.process_time()
        numbers, wrong = ask(selection, pool, right, way, count)
        seconds = time.process_time() - started
        select(copy, settings=settings)
        again = Selection(copy, "default")
        after = judged(again, right)
        possible = count_possible(copy, right)
    count = min(len(before), len(after))
    wrong_of_count = [sum(not one.right for one in part[:count]) for part in (before, after)]
    kept_right = [sum(one.right for one in part) for part in (before, after)]
    kept_wrong = [len(part) - n for part, n in zip((before, after), kept_right, strict=True)]
    errors = [w + possible - r for w, r in zip(kept_wrong, kept_right, strict=True)]
    return {
        "wrong": kept_wrong,
        "right": kept_right,
        "wrong or missing": errors,
        "share of errors removed": round(1 - errors[1] / errors[0], 4),
        "wrong among as many labels": [count, *wrong_of_count],
        "share of wrong removed": round(1 - wrong_of_count[1] / max(wrong_of_count[0], 1), 4),
        "answers that found a wrong label": wrong,
        "threshold": [round(one, 3) for one in (summary.threshold, again.card["threshold"])],
        "common shift": round(again.card["corrections"]["common_shift"], 3),
        "CPU ms an answer": round(1000 * seconds / max(len(numbers), 1)),
    }


def ask(
    selection: Selection, pool: Pool, right: Right, way: str, count: int
) -> tuple[list[int], int]:
    """Answers, one after another; returns (the mentions, how many kept ones were wrong)."""
    queue, answers, asked, wrong = Queue(pool), [], [], 0
    kept = np.flatnonzero(pool.evidence >= pool.threshold)
    order = np.random.default_rng(0).permutation(kept)
    if way == "doubtful":
        order = kept[np.argsort(pool.evidence[kept])]
    rest = iter(order.tolist())
    while len(asked) < count:
        first = queue.first() if way == "queue" else [*itertools.islice(rest, 1)]
        if not first:
            break
        number = first[0]
        row = selection.read(int(pool.file[number]), [int(pool.row[number])])[0]
        mine = [one for one in row["entities"] if one["start"] == pool.start[number]]
        best = max(mine, key=lambda one: one["score"])
        is_right = right(row, best["id"])
        if is_right is None:
            queue.skip(number)
            continue
        others = [one for one in mine if right(row, one["id"])]
        kind, entity = ("right", best["id"]) if is_right else ("not-shown", "")
        if others and not is_right:
            kind, entity = "is", others[0]["id"]
        place = {name: row[name] or "" for name in ("key", "shard", "caption")}
        answers.append(new_answer(kind, name=best["surface"], entity=entity, by="truth", **place))
        queue.answer(number, right=is_right)
        asked.append(number)
        wrong += not is_right and bool(pool.evidence[number] >= pool.threshold)
    add_answers(answers_path(selection.i2e), answers)
    return asked, wrong


@dataclass(frozen=True)
class Judged:
    """A label of a selection."""

    score: float
    right: bool


def judged(selection: Selection, right: Right) -> list[Judged]:
    """Returns the labels of a selection, the surest first."""
    ids = selection.vocabulary["id"].to_pylist()
    found = [
        (score, right(row, ids[number]))
        for row in pq.read_table(selection.folder / "keep.parquet").to_pylist()
        for number, score in zip(row["classes"], row["scores"], strict=True)
    ]
    known = [Judged(score, is_right) for score, is_right in found if is_right is not None]
    return sorted(known, key=lambda one: -one.score)


def count_possible(i2e: Path, right: Right) -> int:
    """Returns how many right labels the candidates offer."""
    columns = ["key", "path", "entities"]
    rows = (
        row
        for file in sorted((i2e / "labels").glob("*.parquet"))
        for row in pq.read_table(file, columns=columns).to_pylist()
    )
    return sum(len({e["id"] for e in row["entities"] or () if right(row, e["id"])}) for row in rows)


if __name__ == "__main__":
    main()
