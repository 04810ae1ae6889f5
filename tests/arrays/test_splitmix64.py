"""SplitMix64's finaliser: numbers, arrays and compiled code alike, by the published stream."""

import numpy as np
import pytest

from openmofi.arrays.splitmix64 import GOLDEN, MASK64, finalise, finalise_int, finalise_one

# The first outputs of the generator with the seed 1234567, as its authors' C code prints them.
STREAM = [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("number", range(len(STREAM)))
def test_it_gives_the_published_stream(number):
    state = (1234567 + (number + 1) * GOLDEN) & MASK64
    assert finalise_int(state) == STREAM[number]
    assert finalise(np.array([state], np.uint64)).tolist() == [STREAM[number]]
    assert int(finalise_one(np.uint64(state))) == STREAM[number]
