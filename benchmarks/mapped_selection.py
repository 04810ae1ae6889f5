"""What does opening a selection for training cost, and what does each further process?

    python benchmarks/mapped_selection.py --rows 1000000 10000000 [--work FOLDER]

Draws selections (captions of eight words, one or two of 100,000 classes, Zipf) and opens each in
processes of its own: read into memory, mapped for the first time, mapped again. Of the last, the
seconds include splitting off a fiftieth and balancing classes; memory is private, so what
processes share counts once, and not here. Fetched are places, captions and classes of batches of
256 images in the order of a run. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.config import EvaluationSettings
from openmofi.schema import VOCABULARY
from openmofi.train import data as train_data
from openmofi.train.class_balance import ClassBalance
from openmofi.train.data import PLACE, open_train_data
from openmofi.train.order import Order

CLASSES, BATCH, BATCHES, PART = 100_000, 256, 400, 1_000_000


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--most-in-memory", type=int, default=10_000_000)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--measure", nargs=2)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(Path(arguments.measure[0]), arguments.measure[1] == "read")))
        return
    result = {}
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            selection = Path(folder)
            write_selection(selection, rows)
            ways = ["mapped for the first time", "mapped"]
            if rows <= arguments.most_in_memory:
                ways.insert(0, "read")
            result[rows] = {way: in_a_process(selection, way) for way in ways}
            sizes = (file.stat().st_size for file in (selection / "mapped").rglob("*.npy"))
            result[rows]["bytes on disk"] = sum(sizes)
    print(json.dumps(result, indent=1))


def write_selection(folder: Path, rows: int) -> None:
    """Writes what `select` would."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    writer = None
    for first in range(0, rows, PART):
        count = min(PART, rows - first)
        drawn = words[rng.integers(0, len(words), (count, 8))]
        names = (rng.zipf(1.3, 2 * count) - 1) % CLASSES
        ends = np.cumsum(np.r_[0, 1 + (rng.random(count) < 0.3)]).astype(np.int32)
        columns = {
            "shard": pa.array([f"{(first + i) // 10_000:06d}.tar" for i in range(count)]),
            "offset": pa.array(rng.integers(0, 1 << 30, count)),
            "size": pa.array(rng.integers(10_000, 60_000, count)),
            "path": pa.nulls(count, pa.string()),
            "caption": pa.array([" ".join(row) for row in drawn.tolist()]),
            "classes": pa.ListArray.from_arrays(pa.array(ends), pa.array(names[: ends[-1]])),
        }
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(folder / "keep.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    ids = [f"Q{number}" for number in range(CLASSES)]
    texts = {"id": ids, "label": ids, "description": [""] * CLASSES, "images": [1] * CLASSES}
    pq.write_table(pa.table(texts, schema=VOCABULARY), folder / "vocabulary.parquet")
    (folder / "card.json").write_text(json.dumps({"input": str(folder)}))


def in_a_process(selection: Path, way: str) -> dict[str, Any]:
    """Returns the figures of one way, in a fresh process."""
    command = [sys.executable, __file__, "--measure", str(selection), way]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def measured(selection: Path, is_read: bool) -> dict[str, Any]:
    """Opens a selection and returns figures."""
    train_data._MAP_ABOVE = 1 << 40 if is_read else 0
    before, started = private_bytes(), time.perf_counter()
    cpu = time.process_time()
    data = open_train_data(selection)
    opened, opened_cpu = time.perf_counter() - started, time.process_time() - cpu
    images = data.split(EvaluationSettings(holdout=0.02), seed=1).learnt
    assert images.classes is not None
    order = Order(len(images), 1, ClassBalance(images.classes, images.rows, 0.5))
    images.fingerprint()
    ready = time.perf_counter() - started
    rates = []
    for step in range(BATCHES):
        at = time.process_time()
        places = order.rows(np.arange(step * BATCH, (step + 1) * BATCH))
        images.records(places, PLACE).to_pylist()
        images.records(places, ["caption"])["caption"].to_pylist()
        images.targets(places)
        rates.append(BATCH / (time.process_time() - at))
    return {
        "seconds to open": round(opened, 2),
        "CPU seconds to open": round(opened_cpu, 2),
        "seconds until the first batch": round(ready, 2),
        "private MB": round((private_bytes() - before) / 1e6),
        "images per CPU second, median": round(float(np.median(rates))),
    }


def private_bytes() -> int:
    """Returns the memory that this process shares with no other and no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) * 1024


if __name__ == "__main__":
    main()
