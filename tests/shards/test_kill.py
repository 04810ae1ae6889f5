"""kill -9 of every process at random moments, worker deaths, and what is left afterwards."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import killable
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi.shards import (
    Shard,
    ShardResult,
    commits,
    committed_files,
    freeze_plan,
    run_shards,
    status,
)
from openmofi.shards.events import read_events

pytestmark = pytest.mark.slow

_SCRIPT = Path(killable.__file__)


def _start(out, **pipes):
    # its own process group, so that workers are killed with it
    return subprocess.Popen([sys.executable, _SCRIPT, out], start_new_session=True, **pipes)


def _wait_for_commits(job, out):
    while not (out / "_done").is_dir() or not commits(out):
        assert job.poll() is None
        time.sleep(0.02)


def _kill_after(out, seconds):
    """Kills the job; says whether it was still running."""
    job = _start(out)
    time.sleep(seconds)
    running = job.poll() is None
    if running:
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    return running


def _rows(out):
    return [pq.read_table(path)["n"].to_pylist() for path in committed_files(out)]


def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path):
    killable.run(tmp_path / "whole", workers=1)
    rng, out, killed = random.Random(0), tmp_path / "killed", 0
    finished = {}
    while killed < 20:
        killed += _kill_after(out, rng.uniform(0.2, 1.0))
        now = {c.shard: c.file for c in commits(out)} if (out / "_done").is_dir() else {}
        assert finished.items() <= now.items()  # what was committed is not made again
        finished = now
        if len(finished) > 30:  # nearly done, too soon to be killed twenty times
            for shard in rng.sample(sorted(finished), 25):
                (out / "_done" / f"{shard}.json").unlink()
                del finished[shard]
    subprocess.run([sys.executable, _SCRIPT, out], check=True, env=os.environ)
    assert _rows(out) == _rows(tmp_path / "whole")
    assert Counter(c.status for c in commits(out)) == {"done": 40}


def test_a_killed_run_is_not_taken_for_a_running_one(tmp_path):
    job = _start(tmp_path)
    _wait_for_commits(job, tmp_path)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    found = status(tmp_path)
    assert (found.running, found.seconds_left) == (0, None)
    assert found.left == 40 - found.totals.done > 0


def test_workers_without_their_main_process_end_quietly_and_fail_no_shard(tmp_path):
    for _ in range(3):
        job = _start(tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        _wait_for_commits(job, tmp_path)
        os.kill(job.pid, signal.SIGKILL)
        _, said = job.communicate(timeout=60)  # until the last worker has closed its end
        assert said == ""
    assert {commit.status for commit in commits(tmp_path)} == {"done"}
    assert killable.run(tmp_path, workers=1, retry="none").done == 40


def test_a_run_of_another_machine_is_believed_for_a_quarter_of_an_hour(tmp_path):
    killable.run(tmp_path, workers=1)
    [log] = (tmp_path / "events").iterdir()
    begin = json.loads(log.read_text().splitlines()[0])
    log.unlink()
    for name, minutes in (("20260101T000000-elsewhere-1", 5), ("20260101T000000-elsewhere-2", 20)):
        begin["time"] = (datetime.now(UTC) - timedelta(minutes=minutes)).isoformat()
        (tmp_path / f"events/{name}.jsonl").write_text(json.dumps(begin) + "\n")
    assert status(tmp_path).running == 1


SHARDS = [Shard(f"s{i}", f"s{i}.tar", "tar", i, i) for i in range(6)]


def _dying(deaths: Path, shard: Shard) -> ShardResult:
    """Kills its process at s2 until there are as many marks in the folder as its name says."""
    if shard.name == "s2" and len(list(deaths.iterdir())) < int(deaths.name):
        (deaths / str(time.monotonic_ns())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ShardResult(pa.table({"n": [shard.size]}))


def _make_dying(deaths: Path):
    return partial(_dying, deaths)


@pytest.mark.parametrize(("deaths", "status"), [(1, "done"), (2, "failed")])
def test_a_worker_that_dies_is_replaced_and_its_shard_tried_once_more(tmp_path, deaths, status):
    marks, out = tmp_path / str(deaths), tmp_path / "out"
    marks.mkdir()
    freeze_plan(out, SHARDS, {})
    totals = run_shards(partial(_make_dying, marks), SHARDS, out=out, workers=2)
    assert totals.done + totals.failed == 6
    found = {commit.shard: commit for commit in commits(out)}["s2"]
    assert found.status == status
    assert ("SIGKILL, 2 times" in found.reason) == (status == "failed")


def test_the_event_log_tells_when_each_shard_was_finished(tmp_path):
    killable.run(tmp_path, workers=1)
    events = [event["event"] for event in read_events(tmp_path)]
    assert events == ["begin", *["shard"] * 40, "end"]
