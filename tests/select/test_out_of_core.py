"""However the labels are cut into blocks and parts, the selection is the same, byte for byte."""

import os
import random
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

import fruit
from labelled import BY_TEXT, candidate, kept_labels, pair, refusal_reasons, write_i2e
from openmofi.cli import main
from openmofi.config import SelectSettings
from openmofi.errors import InputError, SettingsError
from openmofi.select import blocks, select
from openmofi.select.blocks import Budget, available_memory, budget_for, label_blocks
from openmofi.shards import committed_files
from slow_selection import slow_selection

TYPED = """id,name,description,type,subclass_of
red,Red Apple,a round red fruit,apple,
green,Green Apple,a round green fruit,apple,
lime,Lime,a small green citrus,citrus,
plum,Plum,a small purple fruit,stone fruit,
"""
LEAK = fruit.photo("red", 5)
JOINT = {"min_images": 3, "false_label_rate": 0.2}
EVERYTHING = BY_TEXT | {"max_text_area": 0.9, "deny_types": ("stone fruit",), "max_images": 20}


def world(rng, count=400):
    """Rows with copies, near copies, ties, text, damage, several mentions and candidates."""
    rows = []
    for i in range(count):
        found = []
        for start in range(0, 9 * int(rng.integers(3)), 9):
            ids = rng.choice(["red", "green", "lime", "plum"], int(rng.integers(1, 4)), False)
            shown = int(rng.integers(2 * len(ids)))
            for place, one in enumerate(ids):
                z = float(rng.normal(4 * (place == shown)))
                text = float(rng.integers(1, 9)) / 10 / len(ids)
                other = rng.normal(size=int(rng.integers(1, 5))).tolist()
                one = candidate(str(one), z=z, text=text, start=start)
                found.append(one | {"clip_z_other": other})
        for one in found:  # a mention's candidates know as many other images
            alike = [c for c in found if c["start"] == one["start"]]
            one["clip_z_other"] = one["clip_z_other"][: min(len(c["clip_z_other"]) for c in alike)]
        rows.append(
            pair(
                f"k{i}",
                *([] if i % 37 == 5 else found),
                error="corrupt_image" if i % 37 == 5 else "",
                image=LEAK if i % 50 == 0 else b"%d" % rng.integers(2 * count // 3),
                phash=int(rng.integers(2**9)) << 20 if i % 3 else None,
                text=float(rng.random()),
            )
        )
    return rows


def in_shards(rows, size=23):
    return [rows[i : i + size] for i in range(0, len(rows), size)]


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "q.jpg").write_bytes(LEAK)
    return str(folder)


@pytest.fixture
def tiny_memory(monkeypatch):
    """Returns a function that makes blocks of a shard or two, and parts of about 20 images."""

    def shrink(each=18_000):
        monkeypatch.setattr(blocks, "budget_for", lambda *_: Budget(2, each))

    return shrink


def files_of(summary):
    return {path.name: path.read_bytes() for path in summary.out.iterdir()}


@pytest.mark.parametrize(
    "settings",
    [
        JOINT,
        JOINT | {"duplicates": "exact", "max_images": 15},
        JOINT | {"false_label_rate": 1e-6, "duplicates": "keep"},
        JOINT | {"order": "text-first"},
        BY_TEXT | {"order": "caption-match", "threshold": None},
        EVERYTHING,
        JOINT | {"priors": "images", "duplicate_bits": 0},
    ],
)
def test_small_blocks_and_parts_give_the_same_bytes(
    tmp_path, rng, benchmark, tiny_memory, settings
):
    count = 900 if "priors" in settings else 400
    i2e = write_i2e(tmp_path, *in_shards(world(rng, count)), catalogue=TYPED)
    wanted = SelectSettings(**settings, exclude=(benchmark,) if settings is EVERYTHING else ())
    whole = files_of(select(i2e, settings=wanted))
    tiny_memory(18_000 * count // 400)
    labels = label_blocks(committed_files(i2e))
    assert len(labels.blocks) > 4
    assert labels.budget.num_parts(count * 57) > 4
    assert files_of(select(i2e, settings=wanted)) == whole


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("duplicates", ["near", "exact", "keep"])
def test_the_selection_is_that_of_the_slow_reference(
    tmp_path, benchmark, tiny_memory, seed, duplicates
):
    tiny_memory()
    rows = world(np.random.default_rng(seed))
    i2e = write_i2e(tmp_path, *in_shards(rows), catalogue=TYPED)
    settings = SelectSettings(**EVERYTHING | {"duplicates": duplicates}, exclude=(benchmark,))
    summary = select(i2e, settings=settings)
    kept, refused, repeats = slow_selection(rows, settings, {"plum"}, known_images(rows))
    assert refusal_reasons(summary) == refused
    assert kept_labels(summary) == kept
    found = pq.read_table(summary.out / "duplicates.parquet").to_pylist()
    told = {row["key"]: row["of_key"] for row in found if row["reason"] != "evaluation_duplicate"}
    assert told == repeats
    assert len(set(refused.values())) >= 7


def known_images(rows):
    return [(next(row["sha256"] for row in rows if row["key"] == "k0"), None)]


@pytest.mark.parametrize("settings", [JOINT, JOINT | {"order": "text-first", "max_images": 15}])
def test_neither_the_order_of_pairs_nor_their_shards_matter(tmp_path, rng, monkeypatch, settings):
    """Copies with equally sure labels included; and the weights are fitted to a sample."""
    monkeypatch.setattr("openmofi.select.sample._ENOUGH", 150)
    rows, found = world(rng), []
    for number, size in enumerate((23, 60)):
        folder = tmp_path / str(number)
        folder.mkdir()
        summary = select(
            write_i2e(folder, *in_shards(rows, size)), settings=SelectSettings(**settings)
        )
        found.append((kept_labels(summary), refusal_reasons(summary), summary.calibration))
        random.Random(0).shuffle(rows)
    assert found[0] == found[1]
    assert {"duplicate_exact", "duplicate_near"} <= set(found[0][1].values())


def test_too_many_images_of_an_entity_say_what_to_type(tmp_path, rng, tiny_memory):
    rows = [pair(str(i), candidate("red", z=3.0), image=b"%d" % i, phash=i) for i in range(300)]
    i2e = write_i2e(tmp_path, *in_shards(rows))
    tiny_memory()
    with pytest.raises(InputError, match="GB more with --memory, or choose --duplicates exact"):
        select(i2e, settings=SelectSettings(**BY_TEXT))
    assert select(i2e, settings=SelectSettings(**BY_TEXT, duplicates="exact")).kept == 300


def test_too_little_memory_says_how_much_is_needed(tmp_path):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=3.0))])
    with pytest.raises(SettingsError, match=r"--memory 0.2 is too little; give at least 0.6 \(GB"):
        select(i2e, settings=SelectSettings(**BY_TEXT, memory=0.2))


def test_a_labels_file_that_is_gone_is_said_in_one_sentence(tmp_path, capsys):
    i2e = write_i2e(tmp_path, *[[pair(s, candidate("red", z=3.0))] for s in "ab"])
    select(i2e, settings=SelectSettings(**BY_TEXT))
    before = {path: path.read_bytes() for path in (i2e / "select").rglob("*.*")}
    gone = committed_files(i2e)[1]
    gone.unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["select", str(i2e)])
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert str(gone) in said
    assert "repeat `openmofi label`" in said
    assert said.count("\n") == 1
    assert before == {path: path.read_bytes() for path in (i2e / "select").rglob("*.*")}


DYING = """
import os, signal, sys
from pathlib import Path
import numpy as np
import pyarrow.parquet as pq
from openmofi.cli import main
from openmofi.files import folders
from openmofi.select.scattered import Scattered

left = int(sys.argv.pop(1))

def dying(work):
    def until_killed(*arguments, **named):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return work(*arguments, **named)
    return until_killed

np.savez = dying(np.savez)
Scattered.add_sorted = dying(Scattered.add_sorted)
pq.ParquetWriter.write_table = dying(pq.ParquetWriter.write_table)
folders.sync_tree = dying(folders.sync_tree)
folders.sync = dying(folders.sync)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_selection_that_was_killed_is_made_by_the_same_command(tmp_path, rng):
    i2e = write_i2e(tmp_path, *in_shards(world(rng, 200)))
    before = files_of(select(i2e, settings=SelectSettings(**JOINT, max_images=9)))
    after = files_of(select(i2e, name="other", settings=SelectSettings(**JOINT)))
    after["card.json"] = after["card.json"].replace(b"select/other", b"select/default")
    out, command = i2e / "select/default", ["select", str(i2e), "--min-images", "3"]
    command += ["--false-label-rate", "0.2"]
    for moment in (0, 12, 35, 58, 69):  # of 70
        process = [sys.executable, "-c", DYING, str(moment), *command]
        assert subprocess.run(process, capture_output=True).returncode == -signal.SIGKILL
        found = {path.name: path.read_bytes() for path in out.iterdir()}
        assert found in (before, after)
    assert found == after
    select(i2e, settings=SelectSettings(**JOINT, max_images=9))
    subprocess.run([sys.executable, "-m", "openmofi", *command], check=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == after
    assert sorted(path.name for path in (i2e / "select").iterdir()) == ["default", "other"]


FULL = """
import resource, signal, sys
from openmofi.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # no file may grow beyond it
main(sys.argv[1:])
"""


def test_a_disk_without_room_changes_nothing_and_is_said_in_one_sentence(tmp_path, rng):
    i2e = write_i2e(tmp_path, *in_shards(world(rng, 200)))
    before = files_of(select(i2e, settings=SelectSettings(**JOINT)))
    command = [sys.executable, "-c", FULL, "select", str(i2e), "--min-images", "3"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("openmofi: File too large")
    assert failed.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (i2e / "select/default").iterdir()} == before
    assert [path.name for path in (i2e / "select").iterdir()] == ["default"]


@pytest.mark.parametrize(
    ("limits", "least"),
    [
        ({"slurm/job": "3000000000", "slurm/job/step": "max"}, 3_000_000_000),
        ({"slurm": "2000000000", "slurm/job/step": "5000000000"}, 2_000_000_000),
        ({".": "1000000000", "other": "1"}, 1_000_000_000),
    ],
)
def test_the_memory_of_a_job_is_the_least_of_its_groups(tmp_path, limits, least):
    for group, limit in limits.items():
        (tmp_path / "groups" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / group / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "own").write_text("4:memory:/elsewhere\n0::/slurm/job/step\n")
    assert available_memory(tmp_path / "groups", tmp_path / "own") == least


def test_without_groups_the_memory_is_the_machines(tmp_path):
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available_memory(tmp_path, tmp_path / "own") == machine


def test_a_large_knowledge_base_needs_no_setting():
    assert budget_for(None, 60_000_000).threads >= 1
    with pytest.raises(SettingsError, match="--memory 1 is too little"):
        budget_for(1, 60_000_000)


def test_two_runs_do_not_make_one_selection_at_once(tmp_path, monkeypatch):
    i2e = write_i2e(tmp_path, world(np.random.default_rng(1), 40))
    module = sys.modules["openmofi.select.select"]

    def meanwhile(*arguments):
        with pytest.raises(InputError, match="Another run is making the selection 'default'"):
            select(i2e, settings=SelectSettings(**BY_TEXT))
        return learn(*arguments)

    learn = module.learn
    monkeypatch.setattr(module, "learn", meanwhile)
    assert select(i2e, settings=SelectSettings(**BY_TEXT)).kept > 0
