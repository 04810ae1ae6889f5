"""Speeds, times left and counts: those of this run, as people write them, on any kind of output."""

import errno
import os
import sys

import pytest

from openmofi import progress
from openmofi.progress import Progress, duration, rate


@pytest.mark.parametrize(
    ("per_second", "shown"),
    [
        (1234.5, "1,234/s"),
        (12.3, "12/s"),
        (9.96, "10/s"),
        (9.4, "9.4/s"),
        (2.0, "2/s"),
        (0.33, "0.3/s"),
        (0.1, "0.1/s"),
        (0.04, "2.4/min"),
        (0.0005, "1.8/h"),
        (0.00001, "0/h"),
    ],
)
def test_a_speed_is_written_in_the_unit_in_which_it_is_easily_read(per_second, shown):
    assert rate(per_second) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h")]
)
def test_a_duration_is_in_the_largest_unit_of_which_there_are_two(seconds, shown):
    assert duration(seconds) == shown


@pytest.fixture
def clock(monkeypatch):
    """The time, in a list, in which a line is due at every moment."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    return now


@pytest.mark.parametrize(
    ("earlier", "total", "line"),
    [
        (0, 100, "t: 20/100 rows, 2/s, 40 s left, ok"),
        (60, 100, "t: 80/100 rows, 2/s, 10 s left, ok"),  # of 80 in 10 s it would be 8/s, 2 s
        (80, 100, "t: 100/100 rows, 2/s, ok"),
        (0, None, "t: 20 rows, 2/s, ok"),
    ],
)
def test_speed_and_time_left_are_those_of_this_run(clock, capsys, earlier, total, line):
    bar = Progress("t", total, "rows")
    clock[0] += 100  # such as the time in which a dump is unpacked up to where it was read before
    bar.skip(earlier)
    clock[0] += 10
    bar.advance(20, note="ok")
    assert capsys.readouterr().err.splitlines()[-1] == line


def test_units_that_turn_out_to_need_no_work_are_no_speed(clock, capsys):
    bar = Progress("t", 100, "steps")
    clock[0] += 10
    bar.advance(20)
    bar.skip(30)
    clock[0] += 10
    bar.advance(20)
    assert capsys.readouterr().err.splitlines()[-1] == "t: 70/100 steps, 2/s, 15 s left"


def test_before_the_first_unit_nothing_is_said_of_a_speed(clock, capsys):
    Progress("t", 4, "shards").advance(0)
    assert capsys.readouterr().err == "t: 0/4 shards\n"


def test_a_reader_that_is_gone_does_not_end_the_work(clock, monkeypatch):
    class Closed:
        isatty = staticmethod(lambda: False)

        def write(self, _):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(sys, "stderr", Closed())
    bar = Progress("t", 4, "shards")
    bar.advance()
    assert bar.count == 1
