"""What a user may ask of a job: retries, an end at too many errors, its status, a full disk."""

import errno
import os
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from openmofi import progress
from openmofi.errors import InputError, MismatchError, OpenMOFIError, SettingsError
from openmofi.shards import (
    OutputError,
    Shard,
    ShardResult,
    commits,
    committed_files,
    freeze_plan,
    run_shards,
    status,
    tick,
)
from openmofi.shards.commits import Commit, publish
from openmofi.shards.job import TooManyErrors

SHARDS = [Shard(f"s{i}", f"s{i}.tar", "tar", i, i) for i in range(4)]


class Store:
    """A shard function whose inputs may be damaged and fixed."""

    def __init__(self, **state):
        self.state, self.calls = state, []

    def __call__(self, shard):
        self.calls.append(shard.name)
        how = self.state.get(shard.name)
        if how == "gone":
            raise FileNotFoundError(f"{shard.name} is gone")
        rows = 1 if how == "cut" else 2
        tick(rows)
        return ShardResult(
            pa.table({"n": [shard.size] * rows}), damage="truncated_tar" if how == "cut" else None
        )


def _run(out, store, shards=SHARDS, **more):
    freeze_plan(out, shards, {})
    return run_shards(lambda: store, shards, out=out, **more)


MENDED = [replace(shard, size=99) if shard.name == "s2" else shard for shard in SHARDS]


@pytest.mark.parametrize(
    ("retry", "again"),
    [
        ("failed", ["s1"]),
        ("partial", ["s2"]),
        ("failed,partial", ["s1", "s2"]),
        ("none", []),
    ],
)
def test_retry_says_which_finished_shards_are_tried_again(tmp_path, retry, again):
    _run(tmp_path, Store(s1="gone", s2="cut"))
    fixed = Store()
    totals = _run(tmp_path, fixed, retry=retry)
    assert fixed.calls == again
    assert totals.done == 2 + len(again)
    assert totals.rows == 5 + 2 * ("s1" in again) + ("s2" in again)


def test_shards_of_an_earlier_run_are_counted_but_are_no_speed(tmp_path, monkeypatch, capsys):
    _run(tmp_path, Store(s1="gone"))
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    _run(tmp_path, Store())
    assert capsys.readouterr().err.startswith("label: 3/4 shards\nlabel: 3/4 shards, 2 pairs, ")


def test_a_shard_left_undone_is_an_error_where_nobody_else_is_at_work(tmp_path):
    hidden = [*SHARDS[:2], replace(SHARDS[2], name="._s2")]
    with pytest.raises(OpenMOFIError, match="1 of 3 shards are unfinished"):
        _run(tmp_path / "alone", Store(), hidden)
    assert _run(tmp_path / "ranks", Store(), SHARDS, world_size=2).done == 2


def test_a_partial_shard_that_then_fails_keeps_its_rows(tmp_path):
    _run(tmp_path, Store(s2="cut"))
    totals = _run(tmp_path, Store(s2="gone"), retry="failed,partial")
    assert (totals.partial, totals.rows) == (1, 7)


def test_a_mended_shard_leaves_no_file_of_its_former_state(tmp_path):
    _run(tmp_path, Store(s2="cut"))
    _run(tmp_path, Store(), retry="partial")
    assert sorted((tmp_path / "labels").iterdir()) == sorted(committed_files(tmp_path))


def _planned_sizes(out):
    return pq.read_table(out / "plan.parquet")["size"].to_pylist()


@pytest.mark.parametrize(("how", "retry"), [("cut", "partial"), ("gone", "failed")])
def test_the_plan_follows_a_shard_that_was_mended(tmp_path, how, retry):
    _run(tmp_path, Store(s2=how))
    assert _run(tmp_path, Store(), MENDED, retry=retry).done == 4
    assert _planned_sizes(tmp_path) == [0, 1, 99, 3]


def test_a_shard_that_ended_early_and_changed_is_not_left_as_it_was(tmp_path):
    _run(tmp_path, Store(s2="cut"))
    with pytest.raises(MismatchError, match=r"\(s2, \.\.\.\); add --retry partial"):
        _run(tmp_path, Store(), MENDED)
    assert _planned_sizes(tmp_path) == [0, 1, 2, 3]


def test_an_unknown_status_to_retry_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="'retry' cannot be 'broken'"):
        _run(tmp_path, Store(), retry="broken")


def _half_bad(calls, shard):
    calls.append(shard.name)
    return ShardResult(pa.table({"n": range(1000)}), {"corrupt_image": 500})


def test_too_many_errors_stop_the_job_early(tmp_path):
    calls = []
    with pytest.raises(TooManyErrors, match=r"50\.0% .* --fail-if-error-rate 0\.2"):
        _run(tmp_path, partial(_half_bad, calls), fail_if_error_rate=0.2)
    assert calls == ["s0"]
    assert len(commits(tmp_path)) == 1  # what was done stays done


def test_a_full_disk_stops_the_job_and_the_same_call_goes_on(tmp_path, monkeypatch):
    write = pq.write_table

    def full(table, where, **more):
        if "s2-" in str(where):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(table, where, **more)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OutputError, match="No space left on device; fix that"):
        _run(tmp_path, Store())
    assert not list((tmp_path / "labels").glob(".*"))
    monkeypatch.undo()
    assert _run(tmp_path, Store()).done == 4


def test_without_hard_links_a_record_is_published_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    assert _run(tmp_path, Store()).done == 4
    assert _run(tmp_path, Store()).done == 4


def test_of_two_processes_at_one_shard_the_first_record_stands(tmp_path):
    freeze_plan(tmp_path, SHARDS, {})
    (tmp_path / "labels").mkdir()
    for name in ("one", "two"):
        (tmp_path / f"labels/{name}").touch()
    first = publish(Commit("s0", "done", file="labels/one"), tmp_path)
    assert publish(Commit("s0", "done", file="labels/two"), tmp_path) == first
    assert not (tmp_path / "labels/two").exists()


def test_the_status_counts_what_is_left(tmp_path):
    _run(tmp_path, Store(s1="gone", s2="cut"), rank=0, world_size=1)
    (tmp_path / "_done/s3.json").unlink()
    found = status(tmp_path)
    assert (found.totals.done, found.totals.partial, found.totals.failed, found.left) == (
        1,
        1,
        1,
        1,
    )
    assert [shard for shard, *_ in found.troubled] == ["s1", "s2"]
    assert (found.running, found.seconds_left) == (0, None)


def test_the_status_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not an output folder of `openmofi label`"):
        status(tmp_path)


def test_a_damaged_record_is_named(tmp_path):
    _run(tmp_path, Store())
    (tmp_path / "_done/s0.json").write_text('{"shard":')
    with pytest.raises(InputError, match=r"s0\.json' is damaged"):
        commits(tmp_path)


def test_a_shard_that_changed_after_its_commit_is_refused(tmp_path):
    _run(tmp_path, Store())
    changed = [replace(SHARDS[0], size=99), *SHARDS[1:]]
    with pytest.raises(Exception, match=r"1 input shards have changed .*s0"):
        freeze_plan(tmp_path, changed, {})
