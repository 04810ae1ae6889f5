"""The Ray engine on clusters of this machine, with nodes that are lost on the way."""

import sys
import threading
import time
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.shards import Shard, ShardResult, commits, committed_files, freeze_plan, run_shards
from ray_clusters import RAY_MARKS, cluster_of

ray = pytest.importorskip("ray", reason="the extra openmofi[ray] is not installed")
pytestmark = RAY_MARKS

SHARDS = [Shard(f"s{i:02d}", f"s{i:02d}.tar", "tar", i, i) for i in range(40)]


@pytest.fixture
def nodes(monkeypatch):
    """A head without work, and three nodes with one core each."""
    with cluster_of(3, monkeypatch) as made:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # not to be imported there
        yield made


def _work(seconds, shard):
    time.sleep(seconds)
    return ShardResult(pa.table({"n": [shard.size] * 3}), kept=3)


def _make(seconds):
    return partial(_work, seconds)


def _rows(out):
    return [pq.read_table(path)["n"].to_pylist() for path in committed_files(out)]


def _local(tmp_path):
    freeze_plan(tmp_path / "local", SHARDS, {})
    run_shards(partial(_make, 0), SHARDS, out=tmp_path / "local")
    return tmp_path / "local"


def _run_on_ray(out, make):
    freeze_plan(out, SHARDS, {})
    return run_shards(make, SHARDS, out=out, engine="ray", workers=3)


def test_a_lost_node_loses_nothing(tmp_path, nodes):
    cluster, workers = nodes
    out = tmp_path / "ray"
    job = threading.Thread(target=_run_on_ray, args=(out, partial(_make, 0.3)), daemon=True)
    job.start()
    while not (out / "_done").is_dir() or len(commits(out)) < 8:
        assert job.is_alive()
        time.sleep(0.1)
    assert len(commits(out)) < 40
    cluster.remove_node(workers[1], allow_graceful=False)
    job.join(120)
    assert not job.is_alive()
    assert _rows(out) == _rows(_local(tmp_path))
    assert {commit.status for commit in commits(out)} == {"done"}
