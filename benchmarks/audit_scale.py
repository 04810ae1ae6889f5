"""How long `audit` takes to draw from a large selection, and how much memory.

    python benchmarks/audit_scale.py --labels 1e6 1e7 [--checks 300] [--folder FOLDER]

Writes a made-up selection (one label an image, entities as uneven as words, three hosts and a
thousand rare ones), runs `openmofi audit --json` on it in a process of its own, and deletes it.
Prints a line of JSON per number: seconds, CPU seconds and largest memory of that process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from openmofi.schema import VOCABULARY

_ROWS = 1_000_000
_ENTITIES = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--checks", type=int, default=300)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    for number in map(int, options.labels):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            write_selection(Path(folder), number)
            size = (Path(folder) / "keep.parquet").stat().st_size
            cost = cost_of(["audit", folder, "--checks", str(options.checks), "--json"])
        print(json.dumps({"labels": number, "gigabytes": round(size / 1e9, 2), **cost}), flush=True)


def write_selection(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, _ENTITIES + 1)
    ends = np.cumsum(chance / chance.sum())
    hosts = ["a.example", "b.example", "c.example", *(f"h{i}.example" for i in range(1000))]
    weights = np.r_[0.4, 0.2, 0.1, np.full(1000, 0.0003)]
    images = np.zeros(_ENTITIES, np.int64)
    with pq.ParquetWriter(folder / "keep.parquet", _schema()) as file:
        for begin in range(0, number, _ROWS):
            count = min(_ROWS, number - begin)
            classes = np.minimum(np.searchsorted(ends, rng.random(count)), _ENTITIES - 1)
            images += np.bincount(classes, minlength=_ENTITIES)
            host = rng.choice(len(hosts), count, p=weights / weights.sum())
            numbers = [f"{begin + i:09d}" for i in range(count)]
            offsets = pa.array(np.arange(count + 1, dtype=np.int32))
            scores = 1 - rng.beta(0.3, 8, count).astype(np.float32)
            columns = {
                "key": numbers,
                "shard": [f"{(begin + i) // 10_000:06d}.tar" for i in range(count)],
                "url": [
                    f"https://{hosts[h]}/photo/{n}.jpg" for h, n in zip(host, numbers, strict=True)
                ],
                "classes": pa.ListArray.from_arrays(offsets, pa.array(classes, pa.int32())),
                "scores": pa.ListArray.from_arrays(offsets, pa.array(scores)),
                **{name: np.arange(count) for name in ("offset", "size")},
                **{name: pa.repeat("", count) for name in ("path", "caption")},
            }
            file.write_table(pa.table(columns, schema=_schema()))
    ids = [f"E{i}" for i in range(_ENTITIES)]
    vocabulary = {"id": ids, "label": ids, "description": ids, "images": images}
    pq.write_table(pa.table(vocabulary, schema=VOCABULARY), folder / "vocabulary.parquet")
    funnel = {"kept_images": number, "entities": _ENTITIES}
    (folder / "card.json").write_text(json.dumps({"input": str(folder), "funnel": funnel}))


def _schema() -> pa.Schema:
    text, number = pa.string(), pa.int64()
    kinds = {"key": text, "shard": text, "url": text, "classes": pa.list_(pa.int32())}
    kinds |= {"scores": pa.list_(pa.float32()), "offset": number, "size": number}
    return pa.schema([*kinds.items(), ("path", text), ("caption", text)])


def cost_of(arguments: list[str]) -> dict:
    code = "from openmofi.cli import main; main()"
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "gigabytes_of_memory": round(usage.ru_maxrss / 1e6, 2),
    }


if __name__ == "__main__":
    main()
