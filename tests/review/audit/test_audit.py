"""An audit as a whole: answers that survive, certificates that repeat, exports that carry them."""

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from select import select as wait

import pytest
from audited import BY_SCORE, answer_by, write_selection

from openmofi.cli import main
from openmofi.config import AuditSettings, SelectSettings
from openmofi.errors import InputError, MismatchError
from openmofi.export import export
from openmofi.export.audits import read_audits
from openmofi.review.audit import audit, verify
from openmofi.select import select

WRONG = {"lime"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_selection(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def selection(made, tmp_path):
    """A copy with no audits yet."""
    shutil.copytree(made, tmp_path / "i2e" / "select" / "default")
    return tmp_path / "i2e" / "select" / "default"


@pytest.fixture
def checked(selection):
    """The path of a certificate of 20 checks."""
    return audit(selection, settings=settings(checks=20), ask=answer_by(WRONG)).certificate


def settings(**changes) -> AuditSettings:
    return AuditSettings(**{"checks": 60, "by": "anna", **changes})


def bounds_of(summary):
    return [(row.name, row.checked, row.wrong, row.at_least) for row in summary.bounds]


def stop_after(count, ask):
    left = iter(range(count))
    return lambda draw, audited: "quit" if next(left, None) is None else ask(draw, audited)


# ---- answers -----------------------------------------------------------------------------------


def test_a_complete_audit_finds_the_precision_itself(selection):
    summary = audit(selection, settings=settings(), ask=answer_by(WRONG))
    found = {row.name.split(",")[0]: row.at_least for row in summary.bounds}
    assert found["all labels"] == pytest.approx(54 / 60)
    assert (found["long tail"], found["frequent entities"]) == (0, 1)


def test_an_audit_that_stops_goes_on_where_it_was(selection, tmp_path):
    shutil.copytree(selection, tmp_path / "twin")
    for _ in range(3):
        summary = audit(selection, settings=settings(), ask=stop_after(9, answer_by(WRONG)))
    assert summary.checked == 27
    at_once = audit(tmp_path / "twin", settings=settings(checks=27), ask=answer_by(WRONG))
    assert bounds_of(summary) == bounds_of(at_once)


def test_fewer_checks_leave_no_answer_out(checked, selection):
    summary = audit(selection, settings=settings(checks=5))
    assert (summary.checked, summary.planned) == (20, 20)
    assert verify(selection, summary.certificate).checked == 20


def test_the_download_of_another_page_is_refused(checked, selection, tmp_path):
    (tmp_path / "answers.jsonl").write_bytes(checked.with_name("answers.jsonl").read_bytes())
    for flags, name in (({"by": "berta"}, "by"), ({"seed": 1, "by": "berta"}, "seed")):
        shutil.rmtree(selection / "audits/berta", ignore_errors=True)
        with pytest.raises(MismatchError, match=f"have {name} "):
            audit(selection, settings=settings(**flags), answers=tmp_path / "answers.jsonl")


def test_a_bound_never_falls_and_unsure_counts_as_wrong(selection, tmp_path):
    shutil.copytree(selection, tmp_path / "twin")
    said = iter(["yes"] * 30 + ["unsure"] * 10)
    summary = audit(selection, settings=settings(checks=40), ask=lambda *_: next(said))
    said = iter(["yes"] * 30 + ["no"] * 10)
    other = audit(tmp_path / "twin", settings=settings(checks=40), ask=lambda *_: next(said))
    assert summary.bounds[0].at_least == other.bounds[0].at_least
    assert (summary.bounds[0].unsure, other.bounds[0].wrong) == (10, 10)
    content = json.loads(summary.certificate.read_text())
    curve = [bound for _, bound in content["curves"]["all labels"]]
    assert curve == sorted(curve)
    assert len(curve) == 40


def test_back_takes_an_answer_back_and_the_certificate_says_so(selection):
    said = iter(["yes", "no", "back", "yes", "quit"])
    summary = audit(selection, settings=settings(), ask=lambda *_: next(said))
    assert (summary.checked, summary.bounds[0].right) == (2, 2)
    assert json.loads(summary.certificate.read_text())["changed_answers"] == 1


def test_a_line_that_was_cut_short_is_dropped(checked, selection):
    path = checked.with_name("answers.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    summary = audit(selection, settings=settings(checks=20))
    assert summary.checked == 19
    assert audit(selection, settings=settings(checks=20), ask=answer_by(WRONG)).checked == 20


def test_answers_to_other_draws_are_not_mixed_in(checked, selection):
    with pytest.raises(MismatchError, match="--seed 0"):
        audit(selection, settings=settings(seed=1))
    assert audit(selection, settings=settings(seed=1, by="berta")).checked == 0


def test_a_damaged_line_is_named(checked, selection):
    path = checked.with_name("answers.jsonl")
    whole = path.read_text()
    for change in ('{"draw": 3 3,', '{"drew": 3,'):
        path.write_text(whole.replace('{"draw": 3,', change))
        with pytest.raises(InputError, match=r"Line 4 of .*answers.jsonl is damaged"):
            audit(selection, settings=settings())


def test_answers_come_from_a_table_and_only_an_unbroken_list_counts(selection, tmp_path):
    drawn = []
    audit(selection, settings=settings(), ask=lambda draw, _: drawn.append(draw) or "quit")
    audit(
        selection,
        settings=settings(by="b"),
        ask=stop_after(5, lambda d, _: drawn.append(d) or "no"),
    )
    rows = ["shard,key,entity,answer"]
    rows += [f"{d.shard},{d.key},{d.entity},{a}" for d, a in zip(drawn[1:], "yny u", strict=True)]
    (tmp_path / "answers.csv").write_text("\n".join(rows))
    summary = audit(selection, settings=settings(), answers=tmp_path / "answers.csv")
    assert (summary.checked, summary.unread) == (3, 1)
    assert (summary.bounds[0].right, summary.bounds[0].wrong) == (2, 1)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("x,000,red,maybe", "answers 'maybe'; expected yes, no or unsure"),
        ("x,nobody,red,yes", "which was not drawn"),
    ],
)
def test_answers_that_fit_nothing_are_refused(selection, tmp_path, line, part):
    (tmp_path / "a.csv").write_text(f"shard,key,entity,answer\n{line}\n")
    with pytest.raises(InputError, match=part):
        audit(selection, settings=settings(), answers=tmp_path / "a.csv")


# ---- certificates ------------------------------------------------------------------------------


def test_a_certificate_repeats(checked, selection):
    found = verify(selection, checked)
    assert (found.by, found.checked) == ("anna", 20)
    page = checked.with_suffix(".html").read_text()
    assert "anna checked 20 of them" in page


def _raise_bound(content):
    content["bounds"][0]["at_least"] += 0.001


def _swap_draws(content):
    draws = content["draws"]
    draws[0]["key"], draws[1]["key"] = draws[1]["key"], draws[0]["key"]


def _drop_the_wrong(content):
    content["draws"] = [row for row in content["draws"] if row["answer"] == "yes"]
    content["checked"] = len(content["draws"])


def _better_answer(content):
    next(row for row in content["draws"] if row["answer"] == "no")["answer"] = "yes"


def _other_seed(content):
    content["seed"] += 1


def _other_weights(content):
    content["cells"]["weight"][0] *= 1.01


@pytest.mark.parametrize(
    "change",
    [_raise_bound, _swap_draws, _drop_the_wrong, _better_answer, _other_seed, _other_weights],
)
def test_a_certificate_that_was_changed_does_not_repeat(checked, selection, change):
    content = json.loads(checked.read_text())
    change(content)
    checked.write_text(json.dumps(content))
    with pytest.raises(MismatchError, match="does not repeat"):
        verify(selection, checked)


@pytest.mark.parametrize("name", ["selection", "seed", "draws", "bounds", "cells"])
def test_a_damaged_certificate_is_one_sentence(checked, selection, name):
    content = json.loads(checked.read_text())
    del content[name]
    checked.write_text(json.dumps(content))
    with pytest.raises(InputError, match="is damaged"):
        verify(selection, checked)
    checked.write_text("{")
    with pytest.raises(InputError, match="is damaged; repeat `openmofi audit`"):
        read_audits(selection)


def test_the_exports_carry_it_until_the_labels_are_others(made, tmp_path):
    folder = tmp_path / "world"
    folder.mkdir()
    selection = write_selection(folder)
    before = export(selection, out=tmp_path / "0", format="huggingface").out
    assert "not been checked" in (before / "README.md").read_text()
    audit(selection, settings=settings(checks=30), ask=answer_by(WRONG))
    select(folder / "i2e", settings=BY_SCORE)  # the same labels again
    out = export(selection, out=tmp_path / "1", format="huggingface").out
    [row] = json.loads((out / "card.json").read_text())["audits"]
    assert (row["by"], row["seed"], row["checked"]) == ("anna", 0, 30)
    assert "anna checked 30 labels" in (out / "README.md").read_text()
    assert verify(selection, out / "audits/anna/certificate.json").checked == 30
    for kind in ("webdataset", "huggingface"):
        folder_out = export(selection, out=tmp_path / kind, format=kind).out
        assert "anna checked 30" in (folder_out / "croissant.json").read_text()
    select(folder / "i2e", settings=SelectSettings(order="text-first", threshold=1.0, min_images=9))
    assert (selection / "audits/anna/answers.jsonl").is_file()
    out = export(selection, out=tmp_path / "2", format="huggingface").out
    assert "audits" not in json.loads((out / "card.json").read_text())
    with pytest.raises(MismatchError, match="other labels"):
        audit(selection, settings=settings())


# ---- the verb ----------------------------------------------------------------------------------


def run(selection, *more):
    with pytest.raises(SystemExit) as end:
        main(["audit", str(selection), "--by", "anna", *more])
    return end.value.code


def test_lines_of_standard_input_are_keys(selection, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    run(selection, "--checks", "5")
    assert "Does the image show" in capsys.readouterr().out
    code = "from openmofi.cli import main; main()"
    line = [sys.executable, "-c", code, "audit", str(selection), "--checks", "5", "--by", "anna"]
    keys = "y\nz\nn\nb\ny\n"
    done = subprocess.run(line, input=keys, capture_output=True, text=True, check=True, timeout=60)
    assert "checked 2: right 2, wrong 0" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: openmofi audit ")
    run(selection, "--json", "--checks", "5")
    assert json.loads(capsys.readouterr().out)["checked"] == 2


@pytest.mark.slow
def test_kill_and_go_on(selection):
    """In a terminal: keys without Enter, and no answer is lost when the process is killed."""
    code = "from openmofi.cli import main; main()"
    line = [sys.executable, "-c", code, "audit", str(selection), "--by", "anna"]
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe(line[0], line, {**os.environ, "TERM": "xterm"})
    shown = b""

    def wait_for(part: bytes) -> None:
        nonlocal shown
        patience = time.monotonic() + 60
        while part not in shown:
            ready, _, _ = wait([terminal], [], [], max(patience - time.monotonic(), 0))
            assert ready, shown[-500:]
            shown += os.read(terminal, 1 << 16)
        shown = shown.split(part, 1)[1]

    for number, key in enumerate((b"y", b"n", b"u"), 1):
        wait_for(b"[%d/60]" % number)
        wait_for(b"38;2;")  # the image
        wait_for(b"[y/n/u/b/q]")
        os.write(terminal, key)
    wait_for(b"[4/60]")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(terminal)
    [whole, *_] = audit(selection, settings=settings()).bounds
    assert (whole.right, whole.wrong, whole.unsure) == (1, 1, 1)


def test_the_verb_verifies(checked, selection, capsys):
    run(selection, "--verify", str(checked))
    assert "repeats: the same 20 labels" in capsys.readouterr().out
    assert run(selection, "--verify", str(selection / "card.json")) == 1
    assert "is not a certificate" in capsys.readouterr().err


def test_a_second_process_does_not_ask_the_same_person(selection, capsys):
    def ask(draw, audited):
        with pytest.raises(InputError, match="Another process takes answers by 'anna'"):
            audit(selection, settings=settings())
        return "quit"

    audit(selection, settings=settings(), ask=ask)
