"""Decisions about proposals: kept, taken back, written as a catalogue that `kb build` takes."""

import csv
import io
import json
import os
import signal
import subprocess
import sys

import pytest

from openmofi.cli import main
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.review.missing import find_missing, missing_folder
from openmofi.review.missing.decisions import FILE, catalogue, decide, holding_decisions, undo
from openmofi.review.missing.proposals import proposal_ids
from unknown_fruit import write_unknown


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_unknown(tmp_path_factory.mktemp("unknown"))


@pytest.fixture
def out(world, tmp_path):
    return find_missing(world.i2e, embeddings=world.vectors, out=tmp_path / "m").out


def _rows(out):
    return list(csv.DictReader(io.StringIO(catalogue(out))))


def test_accepted_rows_become_entities_of_the_knowledge_base(world, out, tmp_path):
    decide(out, "accept", "new:fig", name="Fig", aliases=["figs"], description='a "purple" fruit')
    decide(out, "reject", "new:kiwi")
    (tmp_path / "new.csv").write_text(catalogue(out))
    kb = build_kb(tmp_path / "new.csv", out=tmp_path / "kb2", onto=world.i2e.parent / "kb").out
    base = KnowledgeBase.open(kb)
    assert base.lookup(["figs"])["id"].to_pylist() == ["new:fig"]
    shown = base.show("new:fig")
    assert (shown.label, shown.description) == ("Fig", 'a "purple" fruit')
    assert base.lookup(["kiwi"]).num_rows == 0
    assert base.row_of("plum") is not None


def test_the_last_decision_counts_and_an_undo_takes_it_back(out):
    decide(out, "accept", "new:fig", by="Ann")
    last = decide(out, "reject", "new:fig", by="Bob")
    assert _rows(out) == []
    undo(out, [last.id])
    assert [row["id"] for row in _rows(out)] == ["new:fig"]
    undo(out, ["new:fig"])
    assert holding_decisions(out) == {}
    assert len((out / FILE).read_text().splitlines()) == 4


def test_decisions_outlive_new_proposals(world, out):
    decide(out, "accept", "new:fig")
    find_missing(world.i2e, embeddings=world.vectors, out=out)
    assert holding_decisions(out)["new:fig"].kind == "accept"


def test_a_line_that_a_kill_cut_off_costs_no_other(out):
    decide(out, "accept", "new:fig")
    with (out / FILE).open("a") as file:
        file.write('{"id": "half')
    decide(out, "accept", "new:kiwi")
    assert set(holding_decisions(out)) == {"new:fig", "new:kiwi"}


def test_a_file_of_something_else_is_one_sentence(out):
    (out / FILE).write_text("no json at all\n")
    with pytest.raises(InputError, match="holds no answers"):
        holding_decisions(out)


@pytest.mark.parametrize(
    ("proposal", "given", "said"),
    [
        ("new:durian", {}, "no proposal"),
        ("new:fig", {"name": " !"}, "needs a letter"),
        ("new:fig", {"aliases": ["a|b"]}, "separates aliases"),
        ("new:fig", {"name": "f" * 3000}, "2,000 characters"),
    ],
)
def test_what_cannot_be_decided_is_one_sentence(out, proposal, given, said):
    with pytest.raises(InputError, match=said):
        decide(out, "accept", proposal, **given)
    assert not (out / FILE).exists()


def test_an_unknown_decision_cannot_be_undone(out):
    with pytest.raises(InputError, match="No decision 'new:fig' holds"):
        undo(out, ["new:fig"])


def test_ids_are_new_to_the_catalogue(world):
    base = KnowledgeBase.open(world.i2e.parent / "kb")
    assert proposal_ids(["sea horse", "fig", "fig"], base) == [
        "new:sea-horse",
        "new:fig",
        "new:fig-2",
    ]


def test_the_verb_proposes_decides_lists_and_exports(world, tmp_path, capsys):
    def run(*flags):
        with pytest.raises(SystemExit) as ended:
            main(["review", "missing", f"{world.i2e}", *flags])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert "2 proposals" in run("--embeddings", f"{world.vectors}")
    run("--accept", "new:fig", "--called", "Fig", "--description", "purple", "--by", "A")
    run("--reject", "new:kiwi")
    listed = {one["id"]: one["decision"] for one in json.loads(run("--json"))}
    assert listed == {"new:fig": "accept", "new:kiwi": "reject"}
    told = run("--undo", "new:kiwi", "--accept", "new:kiwi", "--export", f"{tmp_path}/new.csv")
    assert "2 entities" in told
    assert "next: openmofi kb build" in told
    rows = list(csv.DictReader((tmp_path / "new.csv").read_text().splitlines()))
    assert [(row["id"], row["name"]) for row in rows] == [("new:fig", "Fig"), ("new:kiwi", "kiwi")]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--accept", "new:fig", "--model", "m"], "Make proposals first"),
        (["--called", "Fig"], "go with one --accept"),
        (["--model", "m", "--embeddings", "e"], "either --model or --embeddings"),
        (["--name", "other"], "no proposals"),
    ],
)
def test_a_mistake_at_the_command_line_is_one_sentence(world, tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit) as stopped:
        main(["review", "missing", f"{world.i2e}", "--out", f"{tmp_path}/none", *flags])
    assert stopped.value.code == 1
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_process_loses_no_decision_that_it_acknowledged(out):
    code = (
        "import sys; from pathlib import Path\n"
        "from openmofi.review.missing.decisions import decide\n"
        f"out = Path({str(out)!r})\n"
        "while True: print(decide(out, 'accept', 'new:fig').id, flush=True)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    given = [process.stdout.readline().strip() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    stored = {json.loads(line)["id"] for line in (out / FILE).read_text().splitlines()}
    assert set(given) <= stored


def test_by_default_they_lie_beside_the_labels(world):
    assert missing_folder(world.i2e, "default") == world.i2e / "missing" / "default"
