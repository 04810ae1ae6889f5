"""The GPU kernels against the torch code, in Triton's interpreter, which needs no GPU."""

import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("triton", reason="Triton, which comes with torch for GPUs, is not installed")

from openmofi.config import HeadSettings
from openmofi.train import row_kernels, row_optim
from openmofi.train.entity_head import EntityHead

_KINDS = ["lazy-adam", "row-adam", "row-adagrad", "sgd"]


def _rows(count, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator), dim=-1)


@pytest.mark.parametrize("dim", [1, 12, 64])
def test_the_gather_kernel_normalises_the_wanted_rows(dim):
    rows, index = 3 * _rows(9, dim, 0), torch.tensor([7, 0, 8, 8])
    expected = F.normalize(rows[index], dim=-1)
    torch.testing.assert_close(row_kernels.gather_unit_rows(rows, index), expected)


def _updated(update, kind, index, skips):
    rows = _rows(10, 12, 1)
    rows[-1] = 0  # the row that padding points to
    state = row_optim.make_state(kind, 10, 12, torch.device("cpu"))
    for turn, skip in enumerate(skips):
        gradient = _rows(4, 12, 2 + turn)
        if isinstance(index, torch.Tensor):
            gradient[index == 9] = 0
        update(kind, rows, state, index, gradient, learning_rate=0.05, skip=skip)
    return {"rows": rows, **state}


@pytest.mark.parametrize("index", [torch.tensor([1, 6, 9, 9]), slice(3, 7)], ids=["rows", "range"])
@pytest.mark.parametrize("kind", _KINDS)
def test_the_update_kernel_equals_the_torch_code(kind, index):
    skips = [None, torch.tensor(False), torch.tensor(True), torch.tensor(0.0), None]
    expected = _updated(row_optim.update_rows, kind, index, skips)
    # The interpreter cuts float32 to bf16 where a GPU rounds: one part in 128 of the first moment.
    rough = {"rtol": 1e-2, "atol": 1e-3} if kind == "row-adam" else {"rtol": 1e-5, "atol": 1e-6}
    for name, values in _updated(row_kernels.update_rows, kind, index, skips).items():
        torch.testing.assert_close(values[:-1], expected[name][:-1], **rough)


@pytest.mark.parametrize("kind", _KINDS)
def test_a_skipped_kernel_leaves_even_the_nan_out(kind):
    rows = _rows(5, 12, 1)
    state = row_optim.make_state(kind, 5, 12, torch.device("cpu"))
    before = {name: values.clone() for name, values in {"rows": rows, **state}.items()}
    gradient, skip = torch.full((2, 12), torch.nan), torch.tensor(True)
    row_kernels.update_rows(
        kind, rows, state, torch.tensor([0, 4]), gradient, learning_rate=0.1, skip=skip
    )
    assert all(
        torch.equal(values, before[name]) for name, values in {"rows": rows, **state}.items()
    )


@pytest.mark.parametrize("sampler", ["full", "uniform"])
def test_a_head_with_kernels_learns_as_one_without(sampler):
    rows, targets = [], torch.tensor([[1, 2], [7, -1], [1, -1]])
    for kernels in (None, row_kernels):
        settings = HeadSettings(sampler=sampler, num_sampled=9, optimizer="row-adagrad")
        head = EntityHead(60, 12, settings)
        head._kernels, head.trim = kernels, False
        for step in range(3):
            loss, _ = head.loss(_rows(3, 12, step), targets, step=step)
            loss.backward()
            head.step(learning_rate=0.05, skip=torch.tensor(False))
        rows.append(head.rows_ND)
    torch.testing.assert_close(*rows, rtol=1e-5, atol=1e-6)
