"""The row passes of the class head as Triton kernels, one program per row: `row_optim` on a GPU.

`gather_unit_rows` reads and normalises in one pass; `update_rows` reads each row, its state and its
gradient once, and writes row and state once, while the torch code makes about fifteen passes.
Both equal the torch code up to rounding, which the tests check in Triton's interpreter; they have
not been measured on a GPU.
"""

from __future__ import annotations

import math

import torch
import triton  # pyrefly: ignore[missing-import]
import triton.language as tl  # pyrefly: ignore[missing-import]
from torch import Tensor

from openmofi.train.row_optim import BETA1, BETA2, EPSILON, Rows, State

_LEAST_NORM = 1e-12  # as in torch.nn.functional.normalize
_KINDS = {"sgd": 0, "row-adagrad": 1, "row-adam": 2, "lazy-adam": 3}


def gather_unit_rows(rows_ND: Tensor, index_S: Tensor) -> Tensor:
    """Returns normalised copies of rows."""
    dim = rows_ND.shape[1]
    unit_SD = torch.empty(len(index_S), dim, dtype=rows_ND.dtype, device=rows_ND.device)
    if len(index_S):
        block = triton.next_power_of_2(dim)
        _gather[(len(index_S),)](rows_ND, index_S, unit_SD, dim, _LEAST_NORM, BLOCK=block)
    return unit_SD


def update_rows(
    kind: str,
    rows_ND: Tensor,
    state: State,
    index: Rows,
    gradient_SD: Tensor,
    *,
    learning_rate: float,
    skip: Tensor | None = None,
) -> None:
    """Updates the rows in place; the arguments are those of `row_optim.update_rows`."""
    if isinstance(index, slice):
        index = torch.arange(index.start, index.stop, device=rows_ND.device)
    if not len(index):
        return
    none = rows_ND  # a pointer that is never followed
    _update[(len(index),)](
        rows_ND,
        state.get("first", none),
        state.get("second", none),
        state.get("updates", none),
        index,
        gradient_SD.contiguous(),
        none if skip is None else skip.bool().to(torch.int32),
        learning_rate,
        rows_ND.shape[1],
        _LEAST_NORM,
        KIND=_KINDS[kind],
        CAN_SKIP=skip is not None,
        BETA1=BETA1,
        BETA2=BETA2,
        LOG_BETA1=math.log(BETA1),
        LOG_BETA2=math.log(BETA2),
        EPSILON=EPSILON,
        BLOCK=triton.next_power_of_2(rows_ND.shape[1]),
    )


@triton.jit
def _gather(rows, index, unit, dim, least_norm, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    row = tl.load(index + place)
    values = tl.load(rows + row * dim + columns, mask=inside, other=0.0)
    norm = tl.maximum(tl.sqrt(tl.sum(values * values, 0)), least_norm)
    tl.store(unit + place * dim + columns, values / norm, mask=inside)


@triton.jit
def _update(
    rows,
    first,
    second,
    updates,
    index,
    gradient,
    skip,
    learning_rate,
    dim,
    least_norm,
    KIND: tl.constexpr,
    CAN_SKIP: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    LOG_BETA1: tl.constexpr,
    LOG_BETA2: tl.constexpr,
    EPSILON: tl.constexpr,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    written = dim  # numbers per row that are stored
    if CAN_SKIP:
        written = tl.where(tl.load(skip) == 0, dim, 0)
    row = tl.load(index + place)
    here = row * dim + columns

    # The gradient of the row from that of the normalised row.
    values = tl.load(rows + here, mask=inside, other=0.0)
    slope = tl.load(gradient + place * dim + columns, mask=inside, other=0.0)
    norm = tl.maximum(tl.sqrt(tl.sum(values * values, 0)), least_norm)
    unit = values / norm
    slope = (slope - unit * tl.sum(slope * unit, 0)) / norm

    # The optimisers of row_optim.py, formula by formula.
    if KIND == 0:
        moved = values - learning_rate * slope
    elif KIND == 1:
        squares = tl.load(second + row) + tl.sum(slope * slope, 0) / dim
        moved = values - learning_rate / (tl.sqrt(squares) + EPSILON) * slope
        tl.store(second + row, squares, mask=written > 0)
    else:
        count = tl.load(updates + row) + 1
        unbias1 = 1 - tl.exp(count.to(tl.float32) * LOG_BETA1)
        unbias2 = 1 - tl.exp(count.to(tl.float32) * LOG_BETA2)
        mean = tl.load(first + here, mask=inside, other=0.0).to(tl.float32)
        mean = slope + BETA1 * (mean - slope)
        if KIND == 2:
            squares = tl.sum(slope * slope, 0) / dim
            squares = squares + BETA2 * (tl.load(second + row) - squares)
            tl.store(second + row, squares, mask=written > 0)
        else:
            squares = slope * slope
            squares = squares + BETA2 * (tl.load(second + here, mask=inside, other=0.0) - squares)
            tl.store(second + here, squares, mask=columns < written)
        moved = values - learning_rate * (mean / unbias1) / (tl.sqrt(squares / unbias2) + EPSILON)
        tl.store(first + here, mean.to(first.dtype.element_ty), mask=columns < written)
        tl.store(updates + row, count, mask=written > 0)

    norm = tl.maximum(tl.sqrt(tl.sum(tl.where(inside, moved * moved, 0.0), 0)), least_norm)
    tl.store(rows + here, moved / norm, mask=columns < written)
