"""Runs: neighbouring rows that are equal in all given columns, as sorting leaves them."""

import numpy as np


def begins_run(*columns: np.ndarray) -> np.ndarray:
    """Returns for each row whether it differs from the one before it; the first row does.

    Args:
        columns: one or more, all of the same length.
    """
    first = columns[0]
    begins = np.ones(len(first), bool)
    begins[1:] = first[1:] != first[:-1]
    for column in columns[1:]:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def run_starts(*columns: np.ndarray) -> np.ndarray:
    """Returns the first row of each run."""
    return np.flatnonzero(begins_run(*columns))


def run_numbers(*columns: np.ndarray) -> np.ndarray:
    """Returns for each row the number of its run, from 0."""
    return np.cumsum(begins_run(*columns)) - 1


def run_lengths(starts: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns the number of rows of the runs that begin at `starts`."""
    return np.diff(np.append(starts, num_rows))


def repeat_runs(values: np.ndarray, starts: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns each run's value for each of its rows."""
    return np.repeat(values, run_lengths(starts, num_rows))
