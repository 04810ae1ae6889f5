import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import jpeg, write_tar
from openmofi.errors import InputError
from openmofi.model.transform import Transform
from openmofi.train.data import Loader, open_train_data, permute, rows_of_step


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_permute_is_a_permutation(total, key):
    assert sorted(permute(np.arange(total), total=total, key=key)) == list(range(total))


def test_permute_needs_no_table_for_billions():
    assert permute(np.array([0, 10**12]), total=10**13, key=3).max() < 10**13


def test_keys_give_different_orders():
    orders = {tuple(permute(np.arange(50), total=50, key=key)) for key in range(20)}
    assert len(orders) == 20


def test_every_row_comes_once_per_epoch():
    steps = [rows_of_step(step, batch_size=7, total=21, seed=3) for step in range(6)]
    assert sorted(np.concatenate(steps[:3])) == list(range(21))
    assert sorted(np.concatenate(steps[3:])) == list(range(21))
    assert not np.array_equal(np.concatenate(steps[:3]), np.concatenate(steps[3:]))


@pytest.fixture
def pairs(tmp_path):
    members = {}
    for i in range(6):
        members |= {f"{i}.jpg": jpeg((40 * i, 0, 0)), f"{i}.txt": f"number {i}".encode()}
    members["3.jpg"] = b"no picture"
    return write_tar(tmp_path / "a.tar", members)


def _loader(pairs, **more):
    transform = Transform(16)
    return Loader(open_train_data(pairs), transform, batch_size=3, seed=0, threads=1, **more)


def test_a_corrupt_picture_is_counted_and_replaced(pairs):
    batches = list(_loader(pairs).batches(0, 2))
    assert sum(batch.num_unreadable for batch in batches) == 1
    assert all(3 not in batch.rows and len(batch.rows) == 3 for batch in batches)


def test_a_step_is_the_same_wherever_the_run_starts(pairs):
    whole = list(_loader(pairs).batches(0, 6))
    part = list(_loader(pairs, cache_bytes=0).batches(4, 6))
    for one, other in zip(whole[4:], part, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.pixels, other.pixels)


def test_data_without_any_usable_row_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"1.txt": b"words"})
    with pytest.raises(InputError, match="holds no usable image"):
        open_train_data(path)
