"""Row optimisers against loops over plain numbers."""

import math

import pytest
import torch
from torch.nn import functional as F

from openmofi.train.row_optim import make_state, through_normalise, update_rows

_KINDS = ["lazy-adam", "row-adam", "row-adagrad", "sgd"]


def _unit(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


class _SlowRow:
    """One row and its optimiser, number by number."""

    def __init__(self, kind, row):
        self.kind, self.row, self.count = kind, row, 0
        self.first, self.second = [0.0] * len(row), [0.0] * len(row)

    def update(self, gradient, rate):
        along = sum(r * g for r, g in zip(self.row, gradient, strict=True))
        slope = [g - along * r for r, g in zip(self.row, gradient, strict=True)]
        self.count += 1
        moved = [r - rate * d for r, d in zip(self.row, self._directions(slope), strict=True)]
        norm = math.sqrt(sum(r * r for r in moved))
        self.row = [r / norm for r in moved]

    def _directions(self, slope):
        squares = [g * g for g in slope]
        if self.kind == "sgd":
            return slope
        if self.kind != "lazy-adam":
            squares = [sum(squares) / len(squares)] * len(squares)
        if self.kind == "row-adagrad":
            self.second = [v + s for v, s in zip(self.second, squares, strict=True)]
            return [g / (math.sqrt(v) + 1e-8) for g, v in zip(slope, self.second, strict=True)]
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, slope, strict=True)]
        self.second = [0.99 * v + 0.01 * s for v, s in zip(self.second, squares, strict=True)]
        means = [m / (1 - 0.9**self.count) for m in self.first]
        variances = [v / (1 - 0.99**self.count) for v in self.second]
        return [m / (math.sqrt(v) + 1e-8) for m, v in zip(means, variances, strict=True)]


@pytest.mark.parametrize("index", [torch.tensor([4, 1]), slice(2, 4)], ids=["rows", "range"])
@pytest.mark.parametrize("kind", _KINDS)
def test_rows_follow_the_slow_optimiser(kind, index):
    rows, state = _unit(6, 5, 0), make_state(kind, 6, 5, torch.device("cpu"))
    slow = [_SlowRow(kind, row.tolist()) for row in rows]
    chosen = index.tolist() if isinstance(index, torch.Tensor) else [2, 3]
    for turn in range(6):
        gradient = _unit(2, 5, 1 + turn)
        update_rows(kind, rows, state, index, gradient, learning_rate=0.05)
        for number, slope in zip(chosen, gradient.tolist(), strict=True):
            slow[number].update(slope, 0.05)
    # row-adam keeps its first moment in bf16: 8 bits.
    tolerance = 3e-3 if kind == "row-adam" else 1e-5
    expected = torch.tensor([row.row for row in slow])
    torch.testing.assert_close(rows, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", _KINDS)
def test_rows_that_are_not_in_use_keep_their_state(kind):
    rows, state = _unit(6, 5, 0), make_state(kind, 6, 5, torch.device("cpu"))
    before = rows.clone()
    update_rows(kind, rows, state, torch.tensor([1, 3]), _unit(2, 5, 1), learning_rate=0.1)
    others = [0, 2, 4, 5]
    assert torch.equal(rows[others], before[others])
    assert all(not values[others].any() for values in state.values())
    assert (rows[[1, 3]] != before[[1, 3]]).any(1).all()


@pytest.mark.parametrize("skip", [torch.tensor(True), torch.tensor(1.0)])
@pytest.mark.parametrize("kind", _KINDS)
def test_a_skipped_update_leaves_everything_even_if_the_gradient_is_nan(kind, skip):
    rows, state = _unit(6, 5, 0), make_state(kind, 6, 5, torch.device("cpu"))
    index = torch.tensor([1, 3])
    update_rows(kind, rows, state, index, _unit(2, 5, 1), learning_rate=0.1)
    before = {name: values.clone() for name, values in {"rows": rows, **state}.items()}
    nan = torch.full((2, 5), torch.nan)
    update_rows(kind, rows, state, index, nan, learning_rate=0.1, skip=skip)
    assert all(
        torch.equal(values, before[name]) for name, values in {"rows": rows, **state}.items()
    )


@pytest.mark.parametrize("kind", _KINDS)
def test_a_skip_of_zero_changes_nothing_of_an_update(kind):
    results = []
    for skip in (None, torch.tensor(0.0)):
        rows, state = _unit(6, 5, 0), make_state(kind, 6, 5, torch.device("cpu"))
        update_rows(kind, rows, state, slice(0, 6), _unit(6, 5, 1), learning_rate=0.1, skip=skip)
        results.append(rows)
    assert torch.equal(*results)


def test_the_gradient_through_the_norm_is_tangent():
    rows, gradient = 2 * _unit(3, 5, 0), _unit(3, 5, 1)
    unit = F.normalize(rows, dim=-1)
    expected = (gradient - (gradient * unit).sum(1, keepdim=True) * unit) / 2
    torch.testing.assert_close(through_normalise(rows, gradient), expected)


@pytest.mark.parametrize("kind", _KINDS)
def test_states_are_as_small_as_promised(kind):
    state = make_state(kind, 1000, 64, torch.device("cpu"))
    size = sum(values.nbytes for values in state.values()) / (4 * 1000 * 64)
    wanted = {"lazy-adam": 2, "row-adam": 0.5, "row-adagrad": 0, "sgd": 0}[kind]
    assert wanted <= size < wanted + 0.04
