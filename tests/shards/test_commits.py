import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.errors import InputError, MismatchError
from openmofi.shards import (
    Shard,
    ShardResult,
    commits,
    committed_files,
    freeze_plan,
    run_shards,
)

SHARDS = [Shard(f"s{i}", f"s{i}.tar", "tar", i, i) for i in range(4)]


def _double(shard: Shard) -> ShardResult:
    if shard.name == "s3":
        raise InputError("s3 is empty")
    damage = "truncated_tar" if shard.name == "s2" else None
    return ShardResult(pa.table({"n": [shard.size, shard.size * 2]}), {"corrupt_image": 1}, damage)


def _make(function):
    return function


def _run(out, function=_double, **more):
    freeze_plan(out, SHARDS, {"kb": "a"})
    return run_shards(partial(_make, function), SHARDS, out=out, **more)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_every_shard_gets_one_commit_with_its_status(tmp_path, workers):
    totals = _run(tmp_path, workers=workers)
    assert (totals.done, totals.partial, totals.failed, totals.rows) == (2, 1, 1, 6)
    assert totals.errors == {"corrupt_image": 3}
    assert totals.reasons == {"truncated_tar": 1, "s3 is empty": 1}


def test_a_second_run_repeats_nothing(tmp_path):
    _run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    _run(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before


def test_ranks_share_the_work_without_overlap(tmp_path):
    _run(tmp_path, rank=0, world_size=2)
    assert {commit.shard for commit in commits(tmp_path)} == {"s0", "s2"}
    _run(tmp_path, rank=1, world_size=2)
    assert len(commits(tmp_path)) == 4


def test_files_that_no_commit_names_are_not_read(tmp_path):
    _run(tmp_path)
    pq.write_table(pa.table({"n": [9]}), tmp_path / "labels" / "s0-dead.parquet")
    assert sum(len(pq.read_table(path)) for path in committed_files(tmp_path)) == 6


def test_other_settings_are_refused_with_the_difference(tmp_path):
    freeze_plan(tmp_path, SHARDS, {"kb": "a"})
    with pytest.raises(MismatchError, match="kb = 'a', not 'b'"):
        freeze_plan(tmp_path, SHARDS, {"kb": "b"})
    with pytest.raises(MismatchError, match="input shards have changed"):
        freeze_plan(tmp_path, SHARDS[:3], {"kb": "a"})


def test_the_commit_names_the_digest_of_its_file(tmp_path):
    import hashlib

    _run(tmp_path)
    for commit in commits(tmp_path)[:3]:
        data = (tmp_path / commit.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == commit.sha256


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    import pyarrow as pa
    from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards
    shards = [Shard(f"s{i}", f"s{i}.tar", "tar", i, i) for i in range(6)]
    def function(shard):
        if shard.name == sys.argv[2]:
            os.kill(os.getpid(), signal.SIGKILL)
        return ShardResult(pa.table({"n": [shard.size]}))
    out = Path(sys.argv[1])
    freeze_plan(out, shards, {})
    run_shards(lambda: function, shards, out=out)
"""


@pytest.mark.slow
def test_a_killed_job_goes_on_and_loses_nothing(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(_KILLED))
    out = tmp_path / "out"
    for victim in ("s1", "s4"):
        killed = subprocess.run([sys.executable, script, out, victim], env=os.environ)
        assert killed.returncode == -signal.SIGKILL
    assert [commit.shard for commit in commits(out)] == ["s0", "s1", "s2", "s3"]
    subprocess.run([sys.executable, script, out, "none"], check=True, env=os.environ)
    rows = [pq.read_table(path)["n"].to_pylist() for path in committed_files(out)]
    assert rows == [[i] for i in range(6)]
    assert all(json.loads(p.read_text())["status"] == "done" for p in out.glob("_done/*.json"))
