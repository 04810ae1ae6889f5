"""Draws and answers -> what is known of every stratum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmofi.review.audit.answers import NO, UNSURE, YES
from openmofi.review.audit.bound import error_bound, error_bounds, error_estimate, payoffs
from openmofi.review.audit.strata import Strata, Stratum


@dataclass(frozen=True)
class StratumBound:
    """The precision of a stratum: the share of its labels that is right."""

    kind: str
    """overall, frequency, source or score."""
    name: str
    labels: int
    checked: int
    right: int
    wrong: int
    unsure: int
    """Counted as wrong."""
    at_least: float
    """The precision is not lower, with the asked confidence, whenever one stops."""
    together: float
    """Lower than `at_least`, so that the bounds of all strata hold at once with that confidence."""
    estimate: float | None
    """Without bias, but not a bound; None: nothing was checked."""


def bounds(
    strata: Strata, cells: Sequence[int], answers: Sequence[str], confidence: float
) -> list[StratumBound]:
    """Returns the bound of each stratum, the whole first.

    Args:
        strata: of the selection.
        cells: of each draw, in order.
        answers: to the first draws.
        confidence: probability that a bound is not too high at any time.
    """
    groups = strata.all()
    return [_bound(strata, group, cells, answers, 1 - confidence, len(groups)) for group in groups]


def curve(
    strata: Strata,
    group: Stratum,
    cells: Sequence[int],
    answers: Sequence[str],
    confidence: float,
) -> list[tuple[int, float]]:
    """Returns a stratum's bound after each draw that fell into it: (number of the draw, bound)."""
    drawn, mine = _answered(group, cells, answers)
    found = payoffs(strata.table, group.cells, drawn, mine != YES)
    numbers = np.flatnonzero(group.cells[np.array(cells[: len(answers)], int)]) + 1
    return list(
        zip(numbers.tolist(), (1 - error_bounds(found, 1 - confidence)).tolist(), strict=True)
    )


def _answered(
    group: Stratum, cells: Sequence[int], answers: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cells of a group's answered draws, and the answers."""
    drawn = np.array(cells[: len(answers)], int)
    inside = group.cells[drawn]
    return drawn[inside], np.array(answers, "U6")[inside]


def _bound(
    strata: Strata,
    group: Stratum,
    cells: Sequence[int],
    answers: Sequence[str],
    alpha: float,
    num_groups: int,
) -> StratumBound:
    drawn, mine = _answered(group, cells, answers)
    found = payoffs(strata.table, group.cells, drawn, mine != YES)
    least = [1 - error_bound(found, a) for a in (alpha, alpha / num_groups)]
    return StratumBound(
        group.kind,
        group.name,
        labels=int(strata.table.labels[group.cells].sum()),
        checked=len(drawn),
        **{
            word: int((mine == answer).sum())
            for word, answer in (("right", YES), ("wrong", NO), ("unsure", UNSURE))
        },
        at_least=least[0],
        together=least[1],
        estimate=1 - error_estimate(found) if len(drawn) else None,
    )
