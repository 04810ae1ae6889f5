"""`embed` and `reinforce` on a Ray cluster that loses a node, or a process in its work."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

import fruit
from killing import records
from openmofi.config import EmbedSettings, ReinforceSettings
from openmofi.embed import embed
from openmofi.shards import commits
from openmofi.train import shard_reinforcer
from openmofi.train.reinforce import reinforce
from ray_clusters import RAY_MARKS, cluster_of
from selected import tiny, write_selected

ray = pytest.importorskip("ray", reason="the extra openmofi[ray] is not installed")
pytestmark = RAY_MARKS
NUM_SHARDS = 60


@pytest.fixture
def nodes(monkeypatch):
    """A head without work, and two nodes with one core each."""
    with cluster_of(2, monkeypatch) as made:
        yield made


def _embed(tmp_path, model, out, **how):
    source = tmp_path / "in"
    if not source.exists():
        fruit.write_pairs(source, shards=NUM_SHARDS, per_shard=30)
    settings = EmbedSettings(device="cpu", **how)
    embed(model, source, out=out, settings=settings)


def _reinforce(tmp_path, model, out, **how):
    if not (tmp_path / "data").exists():
        write_selected(tmp_path / "data", images=10 * NUM_SHARDS)
    settings = ReinforceSettings(device="cpu", **how)
    data = tmp_path / "data/select"
    reinforce(model, data=data, recipe=tiny(), out=out, settings=settings)


def _lose_a_node(cluster, node):
    cluster.remove_node(node, allow_graceful=False)


def _lose_a_process(cluster, node):
    """Kills the process that works for a node, whose raylet stays."""
    [raylet] = [info.process.pid for info in node.all_processes["raylet"]]
    while not (found := [pid for pid in _children(raylet) if b"ray::_work" in _title(pid)]):
        time.sleep(0.001)
    os.kill(found[0], signal.SIGKILL)


def _children(parent):
    stats = (Path("/proc") / name / "stat" for name in os.listdir("/proc") if name.isdecimal())
    for stat in stats:
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                yield int(stat.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue


def _title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@pytest.mark.parametrize("run", [_embed, _reinforce])
@pytest.mark.parametrize("lose", [_lose_a_node, _lose_a_process])
def test_nothing_is_lost_or_doubled(tmp_path, nano_dir, nodes, monkeypatch, run, lose):
    monkeypatch.setattr(shard_reinforcer, "_LEAST", 10)
    cluster, workers = nodes
    run(tmp_path, nano_dir, tmp_path / "local", workers=1)
    out = tmp_path / "ray"
    how = {"engine": "ray", "workers": 2, "encoders": 0}
    job = threading.Thread(target=run, args=(tmp_path, nano_dir, out), kwargs=how, daemon=True)
    job.start()
    while len(records(out)) < 4:
        assert job.is_alive()
        time.sleep(0.01)
    lose(cluster, workers[1])
    assert len(records(out)) < NUM_SHARDS, "it was over too soon"
    job.join(240)
    assert not job.is_alive()
    found = [
        [(commit.shard, commit.status, commit.rows, commit.sha256) for commit in commits(place)]
        for place in (tmp_path / "local", out)
    ]
    assert found[0] == found[1]
    assert {status for _, status, *_ in found[1]} == {"done"}
