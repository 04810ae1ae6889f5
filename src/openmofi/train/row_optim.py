"""Optimisers of class rows: gradients of the rows in use -> updates of these rows and their state.

Each optimiser keeps its moments per row and touches them only if the row is in use, so the cost of
a step depends on the rows in use, not on the vocabulary. Rows stay unit vectors: only their
direction matters.

Legend: N rows of the shard (followed by one of padding), S rows in use, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

BETA1, BETA2, EPSILON = 0.9, 0.99, 1e-8

State = dict[str, Tensor]
Rows = Tensor | slice
"""Row numbers, or a range of them."""


def make_state(kind: str, num_rows: int, dim: int, device: torch.device) -> State:
    """Returns the zeroed state of an optimiser.

    row-adam's first moment is bf16, rounded to nearest: a step changes it by a tenth of its
    distance from the gradient, which rounding loses only if the two agree within 2 %.
    """

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    if kind == "sgd":
        return {}
    if kind == "row-adagrad":
        return {"second": zeros(num_rows)}
    per_row = kind == "row-adam"
    return {
        "first": zeros(num_rows, dim, dtype=torch.bfloat16 if per_row else torch.float32),
        "second": zeros(num_rows) if per_row else zeros(num_rows, dim),
        "updates": zeros(num_rows, dtype=torch.int32),
    }


@torch.no_grad()
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
    """Updates the rows in place.

    Args:
        kind: lazy-adam, row-adam, row-adagrad or sgd.
        rows_ND: unit rows.
        state: result of `make_state`.
        index: the rows in use, each once (padding may repeat).
        gradient_SD: gradient of the loss with respect to the normalised rows.
        learning_rate: step size.
        skip: 0-d; nonzero leaves rows and state unchanged, without waiting for the device.
    """
    before = {"rows": _taken(rows_ND, index)}
    before |= {name: _taken(values, index) for name, values in state.items()}
    tangent_SD = through_normalise(before["rows"], gradient_SD)
    moved_SD, after = _FORMULAS[kind](before, tangent_SD, learning_rate)
    after["rows"] = F.normalize(moved_SD, dim=-1)
    for name, values in after.items():
        target = rows_ND if name == "rows" else state[name]
        values = values.to(target.dtype)
        if skip is not None:
            values = torch.where(skip.bool(), before[name], values)
        if isinstance(index, slice):
            target[index] = values
        else:
            target.index_copy_(0, index, values)


def through_normalise(rows_SD: Tensor, gradient_SD: Tensor) -> Tensor:
    """Returns the gradient of rows from that of the same rows normalised."""
    with torch.enable_grad():
        leaf_SD = rows_SD.detach().requires_grad_()
        return torch.autograd.grad(F.normalize(leaf_SD, dim=-1), leaf_SD, gradient_SD)[0]


def _taken(values: Tensor, index: Rows) -> Tensor:
    return values[index] if isinstance(index, slice) else values.index_select(0, index)


def _lazy_adam(before: State, gradient_SD: Tensor, learning_rate: float) -> tuple[Tensor, State]:
    """Adam (arXiv 1412.6980) with a bias correction by each row's own number of updates."""
    updates_S = before["updates"] + 1
    first_SD = torch.lerp(gradient_SD, before["first"], BETA1)
    second_SD = torch.lerp(gradient_SD.square(), before["second"], BETA2)
    count_S1 = updates_S[:, None].float()
    mean_SD = first_SD / (1 - BETA1**count_S1)
    deviation_SD = (second_SD / (1 - BETA2**count_S1)).sqrt() + EPSILON
    moved_SD = before["rows"] - learning_rate * mean_SD / deviation_SD
    return moved_SD, {"first": first_SD, "second": second_SD, "updates": updates_S}


def _row_adam(before: State, gradient_SD: Tensor, learning_rate: float) -> tuple[Tensor, State]:
    """Adam with one second moment per row, the mean over its numbers."""
    updates_S = before["updates"] + 1
    first_SD = torch.lerp(gradient_SD, before["first"].to(gradient_SD.dtype), BETA1)
    second_S = torch.lerp(gradient_SD.square().mean(1), before["second"], BETA2)
    count_S = updates_S.float()
    deviation_S = (second_S / (1 - BETA2**count_S)).sqrt() + EPSILON
    scale_S = learning_rate / ((1 - BETA1**count_S) * deviation_S)
    moved_SD = before["rows"] - scale_S[:, None] * first_SD
    return moved_SD, {"first": first_SD, "second": second_S, "updates": updates_S}


def _row_adagrad(before: State, gradient_SD: Tensor, learning_rate: float) -> tuple[Tensor, State]:
    """Adagrad with one sum of mean squares per row, like FBGEMM's EXACT_ROWWISE_ADAGRAD."""
    second_S = before["second"] + gradient_SD.square().mean(1)
    scale_S = learning_rate / (second_S.sqrt() + EPSILON)
    return before["rows"] - scale_S[:, None] * gradient_SD, {"second": second_S}


_FORMULAS: dict[str, Callable[[State, Tensor, float], tuple[Tensor, State]]] = {
    "lazy-adam": _lazy_adam,
    "row-adam": _row_adam,
    "row-adagrad": _row_adagrad,
    "sgd": lambda before, gradient_SD, rate: (before["rows"] - rate * gradient_SD, {}),
}
