import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.train.class_balance import ClassBalance
from openmofi.train.class_lists import ClassLists
from openmofi.train.order import Order, permute, uniform, unpermute
from openmofi.train.rows import Rows


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_permute_is_a_permutation(total, key):
    assert sorted(permute(np.arange(total), total=total, key=key)) == list(range(total))


def test_permute_needs_no_table_for_billions():
    assert permute(np.array([0, 10**12]), total=10**13, key=3).max() < 10**13


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5])
def test_all_permutations_of_a_handful_are_as_likely(total):
    keys = [random_key(7, Purpose.ORDER, n) for n in range(50 * math.factorial(total))]
    found = Counter(tuple(permute(np.arange(total), total=total, key=key)) for key in keys)
    assert len(found) == math.factorial(total)
    chi_squared = sum((count - 50) ** 2 / 50 for count in found.values())
    freedom = len(found) - 1
    assert chi_squared <= freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("total", [30, 1024, 1025, 5000])
def test_two_places_go_anywhere_alike(total):
    keys = [random_key(8, Purpose.ORDER, n) for n in range(1600)]
    places = np.array([permute(np.array([0, total - 1]), total=total, key=key) for key in keys])
    counts = np.zeros((4, 4))
    np.add.at(counts, tuple((places * 4 // total).T), 1)
    sizes = np.bincount(np.arange(total) * 4 // total)
    pairs = (np.outer(sizes, sizes) - np.diag(sizes)) / (total * (total - 1)) * len(keys)
    assert ((counts - pairs) ** 2 / pairs).sum() < 15 + 5 * 30**0.5


@pytest.mark.parametrize("total", [9, 1024, 1025])
def test_a_place_alone_is_sent_where_it_is_sent_among_all(total):
    whole = permute(np.arange(total), total=total, key=11)
    assert [permute(np.array([n]), total=total, key=11)[0] for n in (0, 5, 8)] == [
        *whole[[0, 5, 8]]
    ]


def test_keys_give_different_orders():
    orders = {tuple(permute(np.arange(50), total=50, key=key)) for key in range(20)}
    assert len(orders) == 20


def test_every_row_comes_once_per_epoch():
    rows = Order(21, 3).rows(np.arange(42))
    assert sorted(rows[:21]) == sorted(rows[21:]) == list(range(21))
    assert not np.array_equal(rows[:21], rows[21:])


def test_another_seed_gives_another_order():
    orders = [Order(21, seed).rows(np.arange(21)).tolist() for seed in (3, 3, 4)]
    assert orders[0] == orders[1] != orders[2]


def test_uniform_numbers_are_even_and_follow_from_index_and_key():
    draws = uniform(np.arange(20_000), columns=3, key=5)
    assert ((draws >= 0) & (draws < 1)).all()
    np.testing.assert_allclose(draws.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(draws.T), np.eye(3), atol=0.03)
    np.testing.assert_array_equal(uniform(np.array([7, 3]), columns=3, key=5), draws[[7, 3]])
    assert not np.array_equal(uniform(np.arange(9), columns=3, key=6), draws[:9])


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.data())
def test_unpermute_undoes_permute(total, key, data):
    index = np.array(data.draw(st.lists(st.integers(0, total - 1), max_size=20)), np.int64)
    places = permute(index, total=total, key=key)
    np.testing.assert_array_equal(unpermute(places, total=total, key=key), index)


def _order(lists, balance, *, left_out=()):
    classes = ClassLists.of(lists)
    rows = Rows.all_but(np.array(left_out, np.int64), total=len(lists))
    return Order(len(rows), 1, ClassBalance(classes, rows, balance))


def _long_tail(balance):
    names = np.repeat([0, 1, 2], [900, 90, 10])
    places = _order([[name] for name in names], balance).rows(np.arange(20_000))
    return np.bincount(names[places]) / len(places), places


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_class_of_n_images_is_seen_in_proportion_to_n_to_the_rest(balance):
    wanted = np.array([900, 90, 10]) ** (1 - balance)
    np.testing.assert_allclose(_long_tail(balance)[0], wanted / wanted.sum(), atol=0.01)


def test_within_a_class_all_images_come_alike():
    times = np.bincount(_long_tail(1.0)[1], minlength=1000)
    for first, last in ((0, 900), (900, 990), (990, 1000)):
        assert times[first:last].max() - times[first:last].min() <= 20  # one per epoch
    assert times.min() > 0


def test_the_rarest_class_of_an_image_counts():
    order = _order([[0, 1], [0], [0], [0]], 1.0)
    times = np.bincount(order.rows(np.arange(4000)), minlength=4)
    assert times[0] == pytest.approx(4000 * 4 / 7, rel=0.05)


@given(st.data())
@settings(deadline=None)
def test_every_image_comes_as_often_as_its_weight_says(data):
    lists = data.draw(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=2))
    chosen = st.lists(st.integers(0, len(lists) - 1), unique=True, max_size=len(lists) - 1)
    left_out, balance = sorted(data.draw(chosen)), data.draw(st.floats(0, 2))
    order = _order(lists, balance, left_out=left_out)
    counts = Counter(name for own in lists for name in own)
    kept = [own for row, own in enumerate(lists) if row not in left_out]
    weights = np.array([min(counts[name] for name in own) ** -balance for own in kept])
    shares = weights / weights.sum() * len(kept)
    for epoch in range(3):
        places = epoch * len(kept) + np.arange(len(kept))
        times = np.bincount(order.rows(places), minlength=len(kept))
        assert (np.abs(times - shares) < 1 + 1e-6).all()
