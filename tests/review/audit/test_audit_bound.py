"""The bets, against exact arithmetic over everything that can be drawn."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.review.audit.bound import (
    SHARES,
    STAKES,
    CellTable,
    Payoffs,
    error_bound,
    error_bounds,
    payoffs,
    wealth,
)

# Labels as (cell, weight, wrong).
SMALL = [(0, 1, True), (0, 1, False), (1, 2, False), (2, 3, True), (2, 3, False)]
WORSE = [(0, 1, True), (1, 4, True), (1, 4, False), (1, 4, True)]


def slow_wealth(order, population, m: Fraction) -> Fraction:
    """K(m) of labels drawn in an order, straight from the formula."""
    total, found = len(population), 0
    money = [Fraction(float(stake)) for stake in STAKES]
    left = list(population)
    for label in order:
        weight = sum(w for _, w, _ in left)
        least = min(w for _, w, _ in left)
        value = Fraction(found, total) + Fraction(label[2] * weight, total * label[1])
        most = Fraction(found, total) + Fraction(weight, total * least)
        if most != m:
            share = (value - m) / (most - m)
            money = [k * (1 - Fraction(float(c)) * share) for k, c in zip(money, SHARES)]  # noqa: B905
        left.remove(label)
        found += label[2]
    return sum(money)


def orders(population, length):
    """Yields every order of draws with its probability."""
    for order in permutations(range(len(population)), length):
        left, chance = set(range(len(population))), Fraction(1)
        for i in order:
            chance *= Fraction(population[i][1], sum(population[j][1] for j in left))
            left.remove(i)
        yield [population[i] for i in order], chance


def found_of(order, population) -> Payoffs:
    cells = sorted({(cell, weight) for cell, weight, _ in population})
    table = CellTable(
        np.array([sum(label[0] == cell for label in population) for cell, _ in cells]),
        np.array([float(weight) for _, weight in cells]),
    )
    drawn, wrong = np.array([x[0] for x in order]), np.array([x[2] for x in order])
    return payoffs(table, np.ones(len(cells), bool), drawn, wrong)


def truth(population) -> Fraction:
    return Fraction(sum(label[2] for label in population), len(population))


@pytest.mark.parametrize("population", [SMALL, WORSE])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_money_on_the_truth_neither_grows_nor_shrinks_on_average(population, length):
    eps = truth(population)
    mean = sum(p * slow_wealth(order, population, eps) for order, p in orders(population, length))
    assert float(mean) == pytest.approx(float(sum(map(Fraction, map(float, STAKES)))), abs=1e-12)


@pytest.mark.parametrize("population", [SMALL, WORSE])
def test_the_money_is_that_of_exact_arithmetic(population):
    for order, _ in orders(population, len(population) - 1):
        for m in (Fraction(1, 10), truth(population), Fraction(3, 4)):
            exact = float(slow_wealth(order, population, m))
            if exact > 0 and m <= min(map(float, found_of(order, population).most)):
                assert wealth(found_of(order, population), float(m)) == pytest.approx(exact)


@pytest.mark.parametrize("population", [SMALL, WORSE])
@pytest.mark.parametrize("alpha", [0.4, 0.2, 0.05])
def test_no_bound_is_ever_wrong_more_often_than_promised(population, alpha):
    eps = float(truth(population))
    missed = Fraction(0)
    for order, chance in orders(population, len(population)):
        if error_bounds(found_of(order, population), alpha).min() < eps - 1e-6:
            missed += chance
    assert float(missed) <= alpha


def some_draws(seed: int, count: int = 60) -> Payoffs:
    rng = np.random.default_rng(seed)
    table = CellTable(np.array([80, 20, 40]), np.array([1.0, 3.0, 0.7]))
    labels = np.repeat([0, 1, 2], table.labels)
    times = rng.exponential(size=len(labels)) / table.weight[labels]
    drawn = labels[np.argsort(times)][:count]
    return payoffs(table, np.ones(3, bool), drawn, rng.random(count) < 0.1)


@given(st.integers(0, 50), st.floats(0, 0.99), st.floats(0, 0.99))
def test_more_errors_are_refuted_before_fewer(seed, one, other):
    found = some_draws(seed)
    low, high = sorted((one, other))
    assert wealth(found, low) <= wealth(found, high) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_the_least_refuted_number_of_a_grid(seed):
    found, grid, least = some_draws(seed), np.linspace(0, 1, 2001), 1.0
    closed = error_bounds(found, 0.05)
    for draw in range(len(closed)):
        past = Payoffs(*(column[: draw + 1] for column in vars(found).values()))
        refuted = [m for m in grid if wealth(past, m) >= 20]
        least = min([least, float(found.worst[draw]), *refuted])
        assert least - 0.0005 - 1e-6 <= closed[draw] <= least + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_the_last_bound_needs_no_earlier_ones(seed):
    found = some_draws(seed)
    assert error_bound(found, 0.05) == pytest.approx(error_bounds(found, 0.05)[-1], abs=1e-8)


def test_a_complete_check_gives_the_truth():
    order = [*SMALL]
    assert error_bounds(found_of(order, SMALL), 0.05)[-1] == pytest.approx(2 / 5)


def test_nothing_wrong_in_n_even_draws_is_as_good_as_the_rule_of_three_allows():
    table = CellTable(np.array([10**6]), np.ones(1))
    found = payoffs(table, np.ones(1, bool), np.zeros(300, int), np.zeros(300, bool))
    assert 1 - 0.05 ** (1 / 300) < error_bounds(found, 0.05)[-1] < 1.5 * (1 - 0.05 ** (1 / 300))


def test_a_group_sees_only_its_own_draws():
    table = CellTable(np.array([5, 7]), np.array([1.0, 2.0]))
    group = np.array([False, True])
    found = payoffs(table, group, np.array([1, 1]), np.array([False, True]))
    assert found.value.tolist() == pytest.approx([0, 6 / 7])
    assert found.most.tolist() == pytest.approx([1, 6 / 7])
    assert found.worst.tolist() == pytest.approx([6 / 7, 6 / 7])
