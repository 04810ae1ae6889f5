"""A job of forty shards whose function is cheap, run as a script so that it can be killed.

python killable.py OUT
"""

import sys
import time
from pathlib import Path

import pyarrow as pa

from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards, tick

SHARDS = [Shard(f"s{i:02d}", f"s{i:02d}.tar", "tar", i, i) for i in range(40)]


def rows_of(shard: Shard) -> ShardResult:
    for _ in range(5):
        time.sleep(0.01)  # so that a kill may come in the middle
        tick(10)
    return ShardResult(pa.table({"n": [shard.size * 100 + i for i in range(50)]}), kept=50)


def make():
    return rows_of


def run(out: Path, workers: int = 2, **more):
    freeze_plan(out, SHARDS, {"kb": "a"})
    return run_shards(make, SHARDS, out=out, workers=workers, **more)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
