"""The queue: which question comes first, against the definition, computed one by one."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from openmofi.review.pool import Pool
from openmofi.review.queue import Queue


def _pool(pair, name, evidence, threshold=0.5, weight=1.0, said=None):
    count = len(pair)
    said = np.zeros(count, np.int8) if said is None else np.array(said, np.int8)
    numbers = np.arange(count)
    keys = (np.array(name, np.uint64), np.array(pair, np.uint64))
    evidence = np.array(evidence, float)
    return Pool(numbers, numbers, numbers, *keys, evidence, said, threshold, weight)


def _slow_worth(pool, number):
    """Labels that an answer is expected to change, label by label."""
    z, v, t = pool.evidence, 2.0, pool.threshold
    right = expit(z[number] / math.sqrt(1 + math.pi * v / 8))
    worth = 0.0
    for chance, said in ((right, 1.0), (1 - right, 0.0)):
        d = brentq(lambda d, s=said: d - v * (s - expit(z[number] + d)), -9, 9)
        changed = 0
        for other in range(len(pool)):
            if np.isnan(z[other]):
                continue
            same_pair = pool.pair[other] == pool.pair[number]
            share = 1.0 if same_pair else 0.5 if pool.name[other] == pool.name[number] else 0.0
            changed += (z[other] >= t) != (z[other] + share * d >= t)
        crosses = (z[number] >= t) != (z[number] + d >= t)
        itself = ((z[number] >= t) and not said) or ((z[number] < t) and bool(said))
        worth += chance * (changed + (itself and not crosses))
    return worth


def test_the_worth_of_a_question_is_what_it_is_expected_to_change():
    rng = np.random.default_rng(0)
    pair = rng.integers(0, 8, 60)
    pool = _pool(pair, pair // 2, rng.normal(1, 1.5, 60))
    worth = Queue(pool).worth()
    assert worth == pytest.approx([_slow_worth(pool, i) for i in range(60)], abs=1e-6)


def test_of_many_alike_the_answer_about_one_is_worth_most():
    pair = [1] * 30 + [2]
    queue = Queue(_pool(pair, pair, [1.0] * 30 + [0.6]))
    [first] = queue.first()
    assert first < 30
    assert queue.first(5) == [first, 30]  # one of each
    for number in (first, *queue.first()):
        queue.answer(number, right=True)
    assert queue.first()[0] not in (first, 30)


def test_answers_make_those_alike_less_worth_asking():
    pair = [1] * 20 + [2] * 20
    queue = Queue(_pool(pair, pair, [1.0] * 40))
    before = queue.worth().copy()
    for number in range(6):
        queue.answer(number, right=True)
    after = queue.worth()
    assert after[10] < before[10] / 2
    assert after[30] == before[30]
    for number in range(6):
        queue.forget(number)
    assert queue.worth() == pytest.approx(before)


def test_what_was_said_is_not_asked_again():
    said = [1, -1, 0, 0]
    queue = Queue(_pool([1, 1, 2, 3], [1, 1, 2, 3], [1.0, 1.0, np.nan, 1.0], said=said))
    assert queue.first(9) == [3]
    queue.skip(3)
    assert queue.first(9) == []
