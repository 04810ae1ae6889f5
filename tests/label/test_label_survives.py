"""`openmofi label` itself, without an encoder: killed, starved, and fed every kind of damage."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

import fruit
from openmofi.cli import main
from openmofi.kb import build_kb
from openmofi.shards import commits, committed_files

pytestmark = pytest.mark.slow
NUM_SHARDS, PER_SHARD = 40, 60
LABEL = [sys.executable, "-m", "openmofi", "label"]


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kb")
    return build_kb(fruit.write_catalogue(folder), out=folder / "kb").out


@pytest.fixture(scope="module")
def forty(tmp_path_factory):
    return fruit.write_pairs(
        tmp_path_factory.mktemp("forty"), shards=NUM_SHARDS, per_shard=PER_SHARD
    )


@pytest.fixture
def run(kb, tmp_path, capsys):
    """Runs a verb in process: (exit code, stdout, stderr); `label` reads in/ and writes o/."""

    def run(verb: str, *flags: str):
        line = [verb, f"{tmp_path}/o", *flags]
        if verb == "label":
            line = [verb, f"{tmp_path}/in", "--kb", f"{kb}", "--out", f"{tmp_path}/o"]
            line += ["--workers", "1", *flags]
        capsys.readouterr()
        try:
            main(line)
            code = 0
        except SystemExit as error:
            code = error.code or 0
        return code, *capsys.readouterr()

    return run


def _write(path, members):
    """Writes a tar in which names may be repeated."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _sample(key, caption=b"a red apple", image=None):
    image = fruit.photo("red") if image is None else image
    return [(f"{key}.jpg", image), (f"{key}.txt", caption)]


def _whole(path, count=4):
    return _write(path, [file for i in range(count) for file in _sample(i)])


def _rows(out):
    return [row for file in committed_files(out) for row in pq.read_table(file).to_pylist()]


def _digests(out):
    return {commit.shard: commit.sha256 for commit in commits(out)}


# ---- kill -9 -----------------------------------------------------------------------------------


def _start(forty, kb, out, workers=2):
    # its own process group, so that workers are killed and stopped with it
    command = [*LABEL, forty, "--kb", kb, "--out", out, "--workers", str(workers)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)


def _kill(job):
    """Kills the job; says whether it was still running."""
    running = job.poll() is None
    if running:
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    return running


def _wait_for_records(job, out, more):
    """Returns once so many more shards are finished, or the job is."""
    wanted = len(_records(out)) + more
    while job.poll() is None and len(_records(out)) < wanted:
        time.sleep(0.001)


def _records(out):
    return [*(out / "_done").glob("[!.]*.json")]


def _finished(out):
    if not (out / "_done").is_dir():
        return {}
    return {commit.shard: (commit.file, commit.sha256) for commit in commits(out)}


def _forget(out, names):
    """Takes records away, as if the shards had not been finished."""
    for name in names:
        (out / "_done" / f"{name}.json").unlink()


def _killed_at_random(forty, kb, out, rng):
    """Kills a job at a random moment of its work; says whether it was still running."""
    job = _start(forty, kb, out, workers=rng.randint(1, 2))
    _wait_for_records(job, out, rng.randrange(6))
    time.sleep(rng.uniform(0, 0.05))
    return _kill(job)


def test_after_twenty_kills_the_labels_are_those_of_an_undisturbed_job(tmp_path, forty, kb):
    whole, out, rng, killed = tmp_path / "whole", tmp_path / "killed", random.Random(0), 0
    assert _start(forty, kb, whole).wait() == 0
    finished = {}
    while killed < 20:
        killed += _killed_at_random(forty, kb, out, rng)
        now = _finished(out)
        assert finished.items() <= now.items()  # what was committed is not made again
        finished = now
        if len(finished) > 30:  # nearly done, too soon to be killed twenty times
            _forget(out, rng.sample(sorted(finished), 25))
            finished = _finished(out)
    assert _start(forty, kb, out).wait() == 0
    assert _digests(out) == _digests(whole)
    assert Counter(row["key"] for row in _rows(out)) == Counter(row["key"] for row in _rows(whole))
    assert len(_rows(out)) == NUM_SHARDS * PER_SHARD


@contextmanager
def _stopped_midway(forty, kb, out):
    """Yields a job that stands still, with some shards done and some left."""
    job = _start(forty, kb, out)
    try:
        _wait_for_records(job, out, 1)
        os.killpg(job.pid, signal.SIGSTOP)
        yield job
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def test_the_status_tells_during_the_job_and_after_it(run, tmp_path, forty, kb):
    with _stopped_midway(forty, kb, tmp_path / "o") as job:
        during = json.loads(run("status", "--json")[1])
        os.killpg(job.pid, signal.SIGCONT)
        assert job.wait() == 0
    after = json.loads(run("status", "--json")[1])
    assert 0 < during["totals"]["done"] < NUM_SHARDS
    assert during["left"] == NUM_SHARDS - during["totals"]["done"]
    assert (during["running"], after["running"], after["left"]) == (1, 0, 0)
    assert after["totals"]["rows"] == NUM_SHARDS * PER_SHARD


# ---- damaged samples: each costs itself, under its reason; the exit code is 0 --------------------

SAMPLES = {name: (_sample("x", image=data), {}) for name, data in fruit.GOOD.items()}
SAMPLES |= {name: (_sample("x", image=data), {why: 1}) for name, (data, why) in fruit.BAD.items()}
SAMPLES |= {
    f"caption {name}": (_sample("x", caption=data), {why: 1})
    for name, (data, why) in {
        "empty": (b"", "no_caption"),
        "blank": (b" \r\n\t", "no_caption"),
        "of a megabyte": (b"apple pie " * 100_000, "caption_too_long"),
        "in latin-1": ("pomme âgée".encode("latin-1"), "caption_not_utf8"),
        "in utf-16": ("apple".encode("utf-16"), "caption_not_utf8"),
    }.items()
}
SAMPLES |= {
    "caption absent": (_sample("x")[:1], {"no_caption": 1}),
    "caption alone": (_sample("x")[1:], {"no_image": 1}),
    "caption in broken json": ([*_sample("x")[:1], ("x.json", b'{"caption"')], {"bad_json": 1}),
    "key twice": ([*_sample("x"), *_sample("x")], {}),
    "key of another sample": (_sample("0"), {}),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_damaged_sample_costs_itself_and_is_counted(run, tmp_path, name):
    files, errors = SAMPLES[name]
    _write(tmp_path / "in/a.tar", [*_sample("0"), *files, *_sample("9")])
    code, out, _ = run("label", "--json")
    totals, rows = json.loads(out), _rows(tmp_path / "o")
    assert (code, totals["done"], totals["errors"]) == (0, 1, errors)
    assert [rows[0]["key"], rows[-1]["key"]] == ["0", "9"]
    assert (
        len(rows) == 2 + sum(file.endswith("jpg") for file, _ in files) or name == "caption alone"
    )
    assert all(row["entities"] for row in rows if row["status"] == "ok")
    assert all(row["error"] for row in rows if row["status"] == "error")


def test_a_key_that_several_shards_have_is_a_pair_of_each(run, tmp_path):
    for name in ("a", "b"):
        _write(tmp_path / f"in/{name}.tar", _sample("0"))
    assert run("label")[0] == 0
    assert [(row["key"], row["shard"]) for row in _rows(tmp_path / "o")] == [
        ("0", "a.tar"),
        ("0", "b.tar"),
    ]


# ---- damaged shards: what can be read is kept, and the exit code tells ---------------------------

_HALF = 5000  # bytes; a sample of the tar takes 2,560 or 3,072


def _scribbled(data):
    """A header in the middle is overwritten."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        start = archive.getmembers()[4].offset
    return data[:start] + b"\xff" * 512 + data[start + 512 :]


SHARDS = {
    "cut short": (lambda data: data[:_HALF], "truncated_tar"),
    "cut inside a header": (lambda data: data[: 512 * 3 + 100], "truncated_tar"),
    "without its end": (lambda data: data.rstrip(b"\0"), "truncated_tar"),
    "scribbled on": (_scribbled, "damaged_tar_header"),
    "garbage": (lambda data: b"garbage" * 500, "not_a_tar"),
    "empty": (lambda data: b"", "not_a_tar"),
    "a gzip": (lambda data: b"\x1f\x8b\x08" + data, "not_a_tar"),
}


def _whole_samples(data):
    """Returns how many samples lie before the damage, as the standard library reads them."""
    names = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                complete = member.offset_data + member.size <= len(data)
                names += [member.name] if complete else []
    except tarfile.TarError:
        pass
    return len({name.split(".")[0] for name in names})


@pytest.mark.parametrize("name", SHARDS)
def test_a_damaged_shard_ends_early_and_keeps_what_lies_before(run, tmp_path, name):
    damage, reason = SHARDS[name]
    path = _whole(tmp_path / "in/a.tar")
    _whole(tmp_path / "in/b.tar")
    path.write_bytes(damage(path.read_bytes()))
    code, out, _ = run("label", "--json")
    totals, before = json.loads(out), _whole_samples(path.read_bytes())
    assert (code, totals["partial"], totals["done"]) == (3, 1, 1)
    assert (totals["reasons"], totals["rows"]) == ({reason: 1}, 4 + before)
    assert f"shard a ended early: {reason}" in run("status")[1]


def test_a_mended_shard_is_read_anew_when_asked_and_else_named(run, tmp_path):
    path = _whole(tmp_path / "in/a.tar")
    data = path.read_bytes()
    path.write_bytes(data[:_HALF])
    assert run("label")[0] == 3
    assert run("label")[0] == 3  # nothing was fixed yet
    path.write_bytes(data)
    code, _, err = run("label")
    assert (code, "--retry partial" in err, err.count("\n")) == (1, True, 1)
    code, out, _ = run("label", "--retry", "partial", "--json")
    assert (code, json.loads(out)["rows"], json.loads(out)["done"]) == (0, 4, 1)
    assert len(list((tmp_path / "o/labels").iterdir())) == 1


def _after(step, act):
    """Returns a step with something that happens behind it."""

    def both(*arguments, **more):
        step(*arguments, **more)
        act()

    return both


def test_a_shard_that_vanishes_fails_alone_until_it_is_back(run, tmp_path, monkeypatch):
    path, away = _whole(tmp_path / "in/a.tar"), tmp_path / "away.tar"
    _whole(tmp_path / "in/b.tar")
    job = sys.modules["openmofi.label.label"]  # whose package has a function of that name
    with monkeypatch.context() as patch:
        vanish = _after(job.freeze_plan, lambda: path.rename(away))  # between plan and reading
        patch.setattr(job, "freeze_plan", vanish)
        code, _, err = run("label")
    assert (code, "1 of 2 shards failed" in err) == (1, True)
    assert "shard a failed: [Errno 2] No such file" in run("status")[1]
    away.rename(path)
    code, out, _ = run("label", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 8)


def test_too_many_refused_pairs_end_the_job_and_keep_the_others(run, tmp_path):
    _write(tmp_path / "in/a.tar", [*_sample("0"), *_sample("1", image=b"")])
    code, _, err = run("label", "--fail-if-error-rate", "0.4")
    assert (code, err.count("\n")) == (1, 1)
    assert "50.0% of the pairs were refused" in err
    assert [row["status"] for row in _rows(tmp_path / "o")] == ["ok", "error"]
    assert run("label", "--fail-if-error-rate", "0.6")[0] == 0


# ---- nowhere to write ----------------------------------------------------------------------------

_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))  # no file may grow beyond it
from openmofi.cli import main
main(sys.argv[1:])
"""


def _line(tmp_path, kb):
    return [f"{tmp_path}/in", "--kb", f"{kb}", "--out", f"{tmp_path}/o", "--workers", "1"]


def test_a_disk_that_takes_no_more_ends_the_job_and_the_same_command_goes_on(run, tmp_path, kb):
    _whole(tmp_path / "in/a.tar", count=300)
    command = [sys.executable, "-c", _LIMITED, "label", *_line(tmp_path, kb)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "repeat the command, which continues the job" in done.stderr
    assert not list((tmp_path / "o/labels").iterdir())  # and no half-written file is left
    code, out, _ = run("label", "--json")
    assert (code, json.loads(out)["rows"]) == (0, 300)


def _without_privileges():
    """Returns what to put before a command so that permissions bind it, also for root."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip("permissions do not bind root, and there is no setpriv to lay them aside")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def test_an_output_that_is_read_only_is_named_and_nothing_is_lost(run, tmp_path, kb):
    _whole(tmp_path / "in/a.tar")
    assert run("label")[0] == 0
    _forget(tmp_path / "o", ["a"])
    (tmp_path / "o/labels").chmod(0o555)
    command = [*_without_privileges(), *LABEL, *_line(tmp_path, kb)]
    done = subprocess.run(command, capture_output=True, text=True)
    (tmp_path / "o/labels").chmod(0o755)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Permission denied" in done.stderr
    assert run("label")[0] == 0


# ---- memory --------------------------------------------------------------------------------------

_PEAK = """
import sys
from openmofi.cli import main
try:
    main(sys.argv[1:])
finally:  # VmHWM is this program's own; ru_maxrss begins with that of the process which started it
    print("peak", next(line.split()[1] for line in open("/proc/self/status") if "VmHWM" in line))
"""


def _peak_megabytes(folder, kb, shards):
    first = _whole(folder / "in/0.tar", count=100)
    for i in range(1, shards):
        shutil.copyfile(first, folder / f"in/{i}.tar")
    command = [sys.executable, "-c", _PEAK, "label", *_line(folder, kb)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split("peak ")[1]) / 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="peaks are read from /proc")
def test_memory_does_not_grow_with_the_number_of_shards(tmp_path, kb):
    peaks = {}
    for shards in (20, 200):
        (tmp_path / str(shards)).mkdir()
        peaks[shards] = _peak_megabytes(tmp_path / str(shards), kb, shards)
    assert peaks[200] < 1.1 * peaks[20] + 10
