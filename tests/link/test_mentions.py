import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from openmofi.link.mentions import leftmost_longest

SPANS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 6)))


@given(SPANS)
def test_selection_equals_a_scan_from_left_to_right(spans):
    spans = sorted({(start, -(start + length)) for start, length in spans})
    starts = np.array([start for start, _ in spans], np.int64)
    ends = np.array([-end for _, end in spans], np.int64)
    expected, reach = [], 0
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if start >= reach:
            expected.append(i)
            reach = end
    assert leftmost_longest(starts, ends).tolist() == expected
