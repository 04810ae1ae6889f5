"""Preview, apply and the way back; and the verbs of `openmofi review`."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from labelled import candidate, pair, write_i2e
from openmofi.cli import main
from openmofi.config import SelectSettings
from openmofi.corrections.answers import answers_path, read_answers
from openmofi.corrections.standing import standing_of
from openmofi.errors import InputError, MismatchError
from openmofi.review.give import give_answer
from openmofi.review.preview import apply, preview, read_preview, revert, undo
from openmofi.review.questions import open_questions
from openmofi.select import select

WEIGHTS = {"text": 1.0, "clip_z": 1.0, "nil_z": 0.0}


@pytest.fixture
def i2e(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        pair(
            f"{i:03d}",
            candidate("red", text=0.6, prior=0.6, z=float(rng.normal(1.5, 1))),
            candidate("green", text=0.3, prior=0.3, z=float(rng.normal(0, 1))),
            image=b"%d" % i,
        )
        for i in range(60)
    ]
    i2e = write_i2e(tmp_path, rows[:25], rows[25:])
    (tmp_path / "weights.json").write_text(json.dumps(WEIGHTS))
    weights = str(tmp_path / "weights.json")
    select(i2e, settings=SelectSettings(threshold=0.6, min_images=1, weights=weights))
    return i2e


def _labels(i2e, name="default"):
    folder = i2e / "select" / name
    ids = pq.read_table(folder / "vocabulary.parquet")["id"].to_pylist()
    rows = pq.read_table(folder / "keep.parquet").to_pylist()
    return {(row["key"], ids[c]) for row in rows for c in row["classes"]}


def _answer_some(i2e):
    kept = sorted(_labels(i2e))
    for key, _ in kept[:3]:
        give_answer(i2e, "not-shown", name="apple", key=key)
    give_answer(i2e, "is", name="apple", key=kept[8][0], entity="lime", by="Ann")


def test_what_is_applied_is_what_was_shown_and_it_can_be_taken_back(i2e):
    before = _labels(i2e)
    _answer_some(i2e)
    found = preview(i2e)
    assert _labels(i2e) == before  # nothing is changed yet
    assert read_preview(i2e) == found
    apply(i2e)
    after = _labels(i2e)
    assert (found.added, found.removed) == (len(after - before), len(before - after))
    assert found.removed > 3  # those alike go, too
    assert found.images == len({key for key, _ in after ^ before})
    shown = {(one["key"], one["id"]) for one in found.gallery}
    assert shown == after ^ before
    assert read_preview(i2e) is None
    assert revert(i2e) == 4
    assert _labels(i2e) == before
    with pytest.raises(InputError, match="Nobody has corrected"):
        preview(i2e)
    with pytest.raises(InputError, match="from before the last apply"):
        revert(i2e)


def test_a_preview_of_other_answers_is_not_applied(i2e):
    _answer_some(i2e)
    first = preview(i2e)
    last = read_answers(answers_path(i2e)).rows[-1]
    undo(i2e, [last.id])
    assert read_preview(i2e) is None
    assert apply(i2e).digest != first.digest
    assert all(entity != "lime" for _, entity in _labels(i2e))


def test_labels_that_changed_since_are_told(i2e):
    _answer_some(i2e)
    shards = i2e / "select/default/shards.parquet"
    pq.write_table(pq.read_table(shards).slice(1), shards)
    with pytest.raises(MismatchError, match="have changed since"):
        preview(i2e)


def test_questions_have_what_is_needed_to_answer_and_learn_at_once(i2e):
    questions = open_questions(i2e)
    [first] = questions.first(1)
    assert first.caption[first.start : first.end] == first.name == "apple"
    assert first.candidates[0].label in ("Red Apple", "Green Apple")
    give_answer(i2e, "not-shown", name="apple", key=first.key)
    answer = read_answers(answers_path(i2e)).rows[-1]
    questions.take(answer, file=first.file, row=first.row, start=first.start)
    [second] = questions.first(1)
    assert second.key != first.key
    again = open_questions(i2e).first(1)  # another process knows it, too
    assert [one.key for one in again] == [second.key]


def test_a_selection_without_scores_has_no_questions(i2e):
    select(i2e, name="text", settings=SelectSettings(order="text-first", threshold=0.0))
    with pytest.raises(InputError, match="in the order joint"):
        open_questions(i2e, name="text")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kind": "right", "name": "apple", "key": "nobody", "entity": "red"}, "no pair"),
        ({"kind": "right", "name": "pear", "key": "000", "entity": "red"}, "no name 'pear'"),
        ({"kind": "right", "name": "apple", "key": "000", "entity": "?"}, "no entity '[?]'"),
        ({"kind": "right", "name": "apple", "entity": "red"}, "give its --key"),
        ({"kind": "right", "name": "apple", "key": "000"}, "needs the entity"),
    ],
)
def test_mistakes_are_told_and_nothing_is_stored(i2e, given, said):
    with pytest.raises(InputError, match=said):
        give_answer(i2e, given.pop("kind"), **given)
    assert not answers_path(i2e).exists()


def test_the_verbs(i2e, tmp_path, capsys):
    def run(*words):
        with pytest.raises(SystemExit) as end:
            main(["review", *map(str, words)])
        assert end.value.code == 0
        return capsys.readouterr().out

    [question] = json.loads(run("queue", i2e, "--k", 1, "--json"))
    key = question["key"]
    assert key in run("queue", i2e)
    said = run("answer", "not-shown", i2e, "--key", key, "--called", "apple", "--by", "Ann")
    assert "next: openmofi review preview" in said
    shown = json.loads(run("preview", i2e, "--json"))
    assert shown["answers"] == 1
    assert "labels change by 1 answers" in run("preview", i2e)
    assert "labels changed" in run("apply", i2e)
    listed = json.loads(run("list", i2e, "--json"))
    assert [(one["by"], one["key"]) for one in listed] == [("Ann", key)]
    assert "1 answers hold" in run("list", i2e)
    (tmp_path / "other").mkdir()
    shutil.copy(answers_path(i2e), tmp_path / "other/corrections.jsonl")
    assert "undid 1" in run("undo", i2e, "--applied")
    assert "added 0" in run("merge", i2e, tmp_path / "other")
    run("answer", "never", i2e, "--called", "apple", "--entity", "green")
    assert json.loads(run("undo", i2e, "--last", 1, "--json")) == {"undone": 1}


def test_a_killed_preview_leaves_the_selection_as_it_was(i2e):
    _answer_some(i2e)
    before = _labels(i2e)
    line = [sys.executable, "-m", "openmofi", "review", "preview", str(i2e)]
    process = subprocess.Popen(line, env=os.environ, stdout=subprocess.DEVNULL)
    process.kill()
    process.wait()
    assert _labels(i2e) == before
    assert preview(i2e).answers == 4


def test_two_who_apply_at_once_leave_a_selection(i2e):
    _answer_some(i2e)
    preview(i2e)
    line = [sys.executable, "-m", "openmofi", "review", "apply", str(i2e)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(line, **pipes) for _ in range(3)]
    said = [process.communicate()[1] for process in running]
    assert 0 in [process.returncode for process in running], said
    assert all("Traceback" not in text and "No such file" not in text for text in said)
    assert len(read_answers(i2e / "select/default/corrections.jsonl").rows) == 4
    assert _labels(i2e) != _labels(i2e, "default.before")
    with pytest.raises(InputError, match="nothing changes"):
        apply(i2e)


def test_audits_outlive_an_apply_and_its_return(i2e):
    _answer_some(i2e)
    first, second = (i2e / "select/default/audits" / by / "answers.jsonl" for by in "ab")
    first.parent.mkdir(parents=True)
    first.write_text("{}")
    apply(i2e)
    second.parent.mkdir(parents=True)
    second.write_text("{}")
    revert(i2e)
    assert first.is_file()
    assert second.is_file()


def test_a_newer_selection_is_not_thrown_away(i2e):
    _answer_some(i2e)
    apply(i2e)
    select(i2e, settings=SelectSettings(false_label_rate=0.3, min_images=1))
    before = _labels(i2e)
    with pytest.raises(InputError, match="made again since the last apply"):
        revert(i2e)
    assert _labels(i2e) == before


def test_what_was_undone_before_an_apply_holds_again_after_its_return(i2e):
    _answer_some(i2e)
    apply(i2e)
    first = _labels(i2e)
    last = read_answers(answers_path(i2e)).rows[-1]
    undo(i2e, [last.id[:12]])  # the beginning will do
    with pytest.raises(InputError, match="taken back before"):
        undo(i2e, [last.id])
    apply(i2e)
    revert(i2e)
    assert _labels(i2e) == first
    assert last.id in {row.id for row in standing_of(read_answers(answers_path(i2e)).rows).answers}


def test_more_than_there_are_can_be_undone(i2e, capsys):
    _answer_some(i2e)
    with pytest.raises(SystemExit):
        main(["review", "undo", str(i2e), "--last", "9", "--json"])
    assert json.loads(capsys.readouterr().out) == {"undone": 4}


def test_wrong_of_another_meaning_does_not_count_against_the_chosen_one(i2e):
    [first] = open_questions(i2e).first(1)
    other = first.candidates[1].id
    give_answer(i2e, "wrong", name="apple", key=first.key, entity=other)
    queue = open_questions(i2e).queue
    assert not queue.pool.said.any()
