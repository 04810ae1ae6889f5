"""Runs of equal rows, against a loop."""

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openmofi.arrays.runs import begins_run, repeat_runs, run_lengths, run_numbers, run_starts

rows = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12)


@given(rows)
def test_runs_are_what_groupby_finds(rows):
    columns = np.array(rows, int).reshape(len(rows), 2).T
    sizes = [len(list(group)) for _, group in groupby(rows)]
    starts = run_starts(*columns)
    assert starts.tolist() == [sum(sizes[:number]) for number in range(len(sizes))]
    assert run_lengths(starts, len(rows)).tolist() == sizes
    numbers = [number for number, size in enumerate(sizes) for _ in range(size)]
    assert run_numbers(*columns).tolist() == numbers
    assert repeat_runs(np.arange(len(sizes)), starts, len(rows)).tolist() == numbers
    assert np.flatnonzero(begins_run(*columns)).tolist() == starts.tolist()


def test_one_column_may_decide():
    assert run_starts(np.array([1, 1, 1]), np.array([5, 6, 6])).tolist() == [0, 1]
