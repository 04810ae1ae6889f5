"""How long `diff` takes, and how much memory: on made-up labels, ten million rows by default.

    python benchmarks/diff_scale.py --shards 1000

Two jobs over the same pairs: the second has other clip_z throughout, other captions on one row in
a hundred, and its pairs lie in twice as many shards, so that every pair is searched by its name.
Compared are two selections from the first job (another rate, a cap), a selection from each, and
the labels of both. Prints JSON: for each comparison seconds, CPU seconds, largest memory, and what
was found.
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
from select_scale import write_world

from openmofi.shards import Shard, ShardResult, commits_of, freeze_plan, run_shards

_SHOWN = ("labels_before", "labels_after", "gained", "lost", "changed", "causes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--entities", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="keeps what is written; default: a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        first, second = folder / "i2e", folder / "other"
        folder.mkdir(parents=True, exist_ok=True)
        if not first.is_dir():
            write_world(folder, options.shards, options.entities, 1)
        if not second.is_dir():
            write_second_job(first, second)
        chosen = [
            (first, "wide", ["--false-label-rate", "0.05"]),
            (first, "strict", ["--false-label-rate", "0.01", "--max-images", "500"]),
            (second, "wide", ["--false-label-rate", "0.05"]),
        ]
        for job, name, settings in chosen:
            if not (job / "select" / name).is_dir():
                run_verb(["select", str(job), "--name", name, *settings])
        compared = {
            "two_selections_of_a_job": (first / "select/wide", first / "select/strict"),
            "selections_of_two_jobs": (first / "select/wide", second / "select/wide"),
            "labels_of_two_jobs": (first, second),
        }
        result: dict = {"rows": 10_000 * options.shards}
        for name, (one, other) in compared.items():
            page, table = (str(folder / f"changes.{kind}") for kind in ("html", "parquet"))
            found, costs = run_verb(["diff", str(one), str(other), "--out", page, "--table", table])
            result[name] = costs | {part: found[part] for part in _SHOWN}
    print(json.dumps(result, indent=2))


def run_verb(arguments: list[str]) -> tuple[dict, dict[str, float]]:
    """Runs a verb in a process of its own; returns its JSON, and what it took."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        command = [sys.executable, "-m", "openmofi", *arguments, "--json"]
        process = subprocess.Popen(command, stdout=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        assert status == 0
        said.seek(0)
        return json.load(said), {
            "seconds": round(seconds, 1),
            "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
            "gigabytes": round(used.ru_maxrss / 1e6, 2),
        }


def write_second_job(first: Path, out: Path) -> None:
    """Labels the same pairs with another encoder, from shards of half the size."""
    files = [first / commit.file for commit in commits_of(first, "labels")]
    half = -(-pq.read_metadata(files[0]).num_rows // 2)
    shards = [
        Shard(f"half-{number:05d}-{part}", "images.tar", "tar", number, 0, part * half)
        for number in range(len(files))
        for part in (0, 1)
    ]
    run = json.loads((first / "run.json").read_text())
    freeze_plan(out, shards, run | {"model": "another", "model_sha256": "another"})

    def work(shard: Shard) -> ShardResult:
        table = pq.read_table(files[shard.size]).slice(shard.start, half).combine_chunks()
        rng = np.random.default_rng(2 * shard.size + (shard.start > 0))
        return ShardResult(relabelled(table, rng))

    run_shards(lambda: work, shards, out=out, workers=1)


def relabelled(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Adds a standard normal number to each clip_z, and a word to a hundredth of the captions."""
    caption = table["caption"].to_pylist()
    for row in np.flatnonzero(rng.random(len(caption)) < 0.01).tolist():
        caption[row] += " again"
    place = table.schema.get_field_index("caption")
    table = table.set_column(place, table.schema.field("caption"), pa.array(caption))
    lists = table["entities"].combine_chunks()
    flat = lists.flatten()
    z = flat.field("clip_z").to_numpy() + rng.normal(size=len(flat)).astype(np.float32)
    new = {"clip_z": pa.array(z), "clip": pa.array(z / 10)}
    kind = lists.type.value_type
    fields = [new.get(field.name, flat.field(field.name)) for field in kind]
    struct = pa.StructArray.from_arrays(fields, fields=list(kind))
    offsets = np.r_[0, np.cumsum(lists.value_lengths().to_numpy())].astype(np.int32)
    entities = pa.ListArray.from_arrays(pa.array(offsets), struct)
    place = table.schema.get_field_index("entities")
    return table.set_column(place, table.schema.field("entities"), entities)


if __name__ == "__main__":
    main()
