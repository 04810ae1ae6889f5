"""Answers on disk: several writers, a line that a kill cut off, a full disk, undo and merge."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from killing import FULL_DISK
from openmofi.corrections.answers import (
    LabelAnswer,
    add_answers,
    merge_answers,
    new_answer,
    read_answers,
)
from openmofi.corrections.standing import NameAnswer, Place, standing_of
from openmofi.errors import InputError
from orchard import wait_until

_WRITER = """
import sys
from pathlib import Path
from openmofi.corrections.answers import add_answers, new_answer
for number in range(int(sys.argv[3])):
    answer = new_answer("never", name=f"n{number}", entity="e", by=sys.argv[2])
    add_answers(Path(sys.argv[1]), [answer])
    print(answer.id, flush=True)  # acknowledged
"""


def _answer(kind="right", key="a", name="apple", entity="red", **fields) -> LabelAnswer:
    return new_answer(kind, key=key, name=name, entity=entity, **fields)


def _writer(path, by, count):
    line = [sys.executable, "-c", _WRITER, str(path), by, str(count)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "corrections.jsonl"
    writers = [_writer(path, by, 40) for by in "abc"]
    acknowledged = {line for writer in writers for line in writer.communicate()[0].split()}
    read = read_answers(path)
    assert {row.id for row in read.rows} == acknowledged
    assert len(acknowledged) == 120
    assert read.damaged == 0


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path):
    path = tmp_path / "corrections.jsonl"
    writer = _writer(path, "a", 100_000)
    wait_until(lambda: path.is_file() and path.stat().st_size > 3000)
    writer.send_signal(signal.SIGKILL)
    acknowledged = set(writer.communicate()[0].split())
    assert acknowledged <= read_answers(path).by_id.keys()


def test_a_line_that_was_cut_off_costs_only_itself(tmp_path):
    path = tmp_path / "corrections.jsonl"
    first, second = _answer(), _answer("wrong")
    add_answers(path, [first])
    with path.open("ab") as file:
        file.write(b'{"id":"x","time":"2026')
    add_answers(path, [second])
    read = read_answers(path)
    assert (read.rows, read.damaged) == ((first, second), 1)


def test_a_file_whose_first_line_was_cut_off_has_no_answers_yet(tmp_path):
    path = tmp_path / "corrections.jsonl"
    path.write_bytes(b'{"id":"x","ti')
    assert (read_answers(path).rows, read_answers(path).damaged) == ((), 1)
    add_answers(path, [_answer(caption="long " * 5000)])
    assert len(read_answers(path).rows) == 1


def test_lines_that_are_not_text_cost_only_themselves(tmp_path):
    path = tmp_path / "corrections.jsonl"
    first, second = _answer(), _answer("wrong")
    add_answers(path, [first])
    with path.open("ab") as file:
        file.write(b'\xff\xfe{"id":1}\n[]\n{"id":"a","time":"b","kind":"perhaps"}\n')
    add_answers(path, [second])
    assert (read_answers(path).rows, read_answers(path).damaged) == ((first, second), 3)


def test_a_full_disk_leaves_the_answers_as_they_were(tmp_path):
    path = tmp_path / "corrections.jsonl"
    add_answers(path, [_answer() for _ in range(20)])
    before = path.read_bytes()
    code = FULL_DISK.format(most=len(before) + 30).replace(
        "from openmofi.cli import main\nmain(sys.argv[1:])",
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path\n"
        "from openmofi.corrections.answers import add_answers, new_answer\n"
        "add_answers(Path(sys.argv[1]), [new_answer('never', name='n', entity='e')])",
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "Cannot write" in done.stderr
    assert path.read_bytes() == before


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "corrections.jsonl"
    path.write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="holds no answers"):
        read_answers(path)


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("nearly", {}, "no answer 'nearly'"),
        ("right", {"name": "apple"}, "needs the entity"),
        ("not-shown", {"entity": "red"}, "needs the name"),
        ("undo", {}, "needs the undoes"),
        ("right", {"name": "x" * 20_000, "entity": "red"}, "10,000 characters"),
    ],
)
def test_an_answer_that_says_nothing_is_refused(kind, fields, said):
    with pytest.raises(InputError, match=said):
        new_answer(kind, **fields)


def test_an_answer_with_a_field_of_a_later_version_is_read(tmp_path):
    path = tmp_path / "corrections.jsonl"
    add_answers(path, [_answer()])
    row = json.loads(path.read_text()) | {"mood": "good"}
    path.write_text(json.dumps(row) + "\n")
    assert len(read_answers(path).rows) == 1


def test_an_undo_can_be_undone():
    first = _answer()
    undo = new_answer("undo", undoes=first.id)
    redo = new_answer("undo", undoes=undo.id)
    assert standing_of([first, undo]).answers == ()
    assert standing_of([redo, first, undo]).answers == (first,)


def test_the_last_word_counts_and_contradictions_are_counted():
    rows = [
        _answer("right", by="a"),
        _answer("is", entity="green", by="b"),
        _answer("not-shown", entity="", key="b", by="a"),
        _answer("right", key="b", by="a"),  # the same person changed their mind
    ]
    standing = standing_of(reversed(rows))
    place = Place("a", "", "")
    assert standing.names[place] == {"apple": NameAnswer("green")}
    assert standing.names[Place("b", "", "")] == {"apple": NameAnswer("red")}
    assert standing.contradictions == 1


def test_wrong_takes_out_and_right_takes_back():
    rows = [_answer("wrong"), _answer("wrong", entity="green"), _answer("right")]
    assert standing_of(rows).names[Place("a", "", "")]["apple"] == NameAnswer(
        "red", wrong={"green"}
    )
    rules = [_answer("never", name="Apples"), _answer("always", name="apples")]
    standing = standing_of(rules)
    assert (standing.never, standing.always) == (frozenset(), {"apples": "red"})


@pytest.mark.parametrize(
    ("place", "pair", "fits"),
    [
        (("a", "0.tar", "c"), ("a", "0.tar", "another"), True),
        (("a", "0.tar", "c"), ("a", "1.tar", "c"), True),  # repacked
        (("a", "0.tar", "c"), ("a", "1.tar", "d"), False),  # another pair with this key
        (("a", "0.tar", "c"), ("b", "0.tar", "c"), False),
        (("", "0.tar", "c"), ("", "0.tar", "d"), False),
        (("", "0.tar", "c"), ("", "1.tar", "c"), True),
    ],
)
def test_a_pair_is_found_again_and_not_taken_for_another(place, pair, fits):
    assert Place(*place).fits(*pair) is fits


def test_merging_twice_adds_nothing(tmp_path):
    path = tmp_path / "corrections.jsonl"
    mine, theirs = _answer(by="a"), _answer("wrong", by="b")
    add_answers(path, [mine])
    assert merge_answers(path, [mine, theirs]) == 1
    assert merge_answers(path, [theirs, mine]) == 0
    forth, back = standing_of([mine, theirs]), standing_of([theirs, mine])
    assert forth.digest == back.digest == standing_of(read_answers(path).rows).digest


def test_answers_are_synced_before_they_are_acknowledged(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(time.monotonic()), real(fd))[1])
    add_answers(tmp_path / "corrections.jsonl", [_answer()])
    assert len(synced) == 2  # the line, and the new file's name
