import inspect
import itertools
from fractions import Fraction

import numpy as np
import pytest

from openmofi.arrays.random_keys import Purpose, mix_integers, mix_words, random_key


def test_no_two_lists_of_numbers_share_a_key():
    values = (0, 1, -1, 2**63, 2**64, 2**64 + 1, -(2**64), 2**128, 2**29, 20240101)
    lists = [c for n in range(4) for c in itertools.product(values, repeat=n)]
    assert len({mix_integers(*numbers) for numbers in lists}) == len(lists)


def test_seeds_and_steps_mix_without_collisions():
    keys = {random_key(s, Purpose.ORDER, n) for s in range(50) for n in range(200)}
    assert len(keys) == 10_000


def test_every_bit_of_a_key_is_even():
    keys = np.array([random_key(3, Purpose.ORDER, n) for n in range(4000)], np.uint64)
    shares = [((keys >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)]
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / 4000**0.5


def test_numbers_of_numpy_give_the_keys_of_integers_and_fractions_none():
    assert random_key(np.int64(-3), Purpose.MAP, np.uint8(200)) == random_key(-3, Purpose.MAP, 200)
    with pytest.raises(TypeError):
        mix_integers(Fraction(1, 2))


def test_purposes_have_numbers_of_their_own():
    assert len(Purpose) == len(set(map(int, Purpose))) == inspect.getsource(Purpose).count(" = ")


def test_arrays_are_mixed_as_single_numbers_are():
    numbers = [0, 1, 2, 2**63, 2**64 - 1, 20240101]
    states = np.array([mix_integers(7, n) for n in numbers], np.uint64)
    words = np.array(numbers, np.uint64)
    assert mix_words(mix_integers(7), words).tolist() == states.tolist()
    table = mix_words(states[:, None], words)
    assert table.tolist() == [[mix_integers(7, a, b) for b in numbers] for a in numbers]
