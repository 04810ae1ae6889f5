"""Softmax cross entropy over class rows that are spread over ranks and too many for one matrix.

In: the images of every rank and this rank's classes. Out: each rank's mean loss over its own
images, and the gradients. Only the log of the softmax's denominator is kept from the forward pass:
the backward pass computes the logits again, a block of classes at a time, so the largest matrix is
A x one block. Ranks exchange images, two numbers per image and, in the backward pass, the images'
gradients.

Legend: B images of this rank, A images of all ranks, K true classes per image (the first is the
target), S classes of this rank in this step, C classes of one block, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from openmofi.config import HeadSettings
from openmofi.train.collectives import (
    gather,
    num_ranks,
    rank_of,
    reduce_max,
    reduce_sum,
    sum_and_scatter,
)
from openmofi.train.margins import apply_margin

MOST_AT_ONCE = 16_384
"""Up to so many classes, logits are kept for backward; above that, blocks have a quarter of it."""

_HIDDEN = -1e8  # as cosine: leaves no share of any softmax, and is finite


@dataclass
class Comparison:
    """One step: what is compared, and what later passes need from the first."""

    columns_AK: Tensor
    """Column of each true class among this rank's; -1 for padding and classes of other ranks."""
    num_columns: int
    unit_rows: Callable[[int, int], Tensor]
    """The normalised rows of columns [first, last)."""
    settings: HeadSettings
    group: dist.ProcessGroup | None = None
    log_q_S: Tensor | None = None
    padding_S: Tensor | None = None
    keep_row_gradient: bool = True
    """Whether to compute the rows' gradient with the images', instead of in `row_gradients`."""
    dtype: torch.dtype = torch.float32
    """Type of logits, sums and gradients."""
    product_dtype: torch.dtype | None = None
    """Type to which matrices are rounded before a product; None means `dtype`."""
    images_AD: Tensor = field(init=False)
    log_sum_A: Tensor = field(init=False)
    weight_A: Tensor | None = None
    kept: _Block | None = None
    row_gradient_SD: Tensor | None = None

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """The ranges of columns that are processed at once."""
        if self.num_columns <= MOST_AT_ONCE:
            return [(0, self.num_columns)] if self.num_columns else []
        size = MOST_AT_ONCE // 4
        starts = range(0, self.num_columns, size)
        return [(start, min(start + size, self.num_columns)) for start in starts]

    @property
    def is_plain(self) -> bool:
        """Whether one matrix on one rank holds all logits."""
        return len(self.blocks) == 1 and num_ranks(self.group) == 1


class _Block(NamedTuple):
    """Logits of one block of columns, and what is known about the targets in it."""

    logits_AC: Tensor
    columns_A1: Tensor
    here_A1: Tensor
    """Whether the target is in this block; its column is 0 if it is not."""
    target_logits_A1: Tensor
    slope_A1: Tensor
    """Derivative of the margin at the target's cosine."""
    target_cosines_A1: Tensor
    best_other_A: Tensor
    """Largest cosine of another class."""


def cross_entropy(images_BD: Tensor, comparison: Comparison) -> tuple[Tensor, Tensor]:
    """Returns (mean loss, accuracy without margin) of this rank's images.

    The loss can be differentiated once. Its backward pass gives the images the gradient of the sum
    over ranks of their losses (which DistributedDataParallel then divides by the number of ranks),
    and stores the rows' gradient in the comparison, even if only the images' is used.
    """
    # Because of the rows, the loss needs a backward pass even if the images do not.
    anchor = torch.zeros((), device=images_BD.device, requires_grad=True)
    return _CrossEntropy.apply(images_BD, anchor, comparison)


def row_gradients(comparison: Comparison) -> Iterator[tuple[int, int, Tensor]]:
    """Yields (first column, last column, gradient of their normalised rows), block by block.

    It is the gradient of the mean over ranks of the loss that was differentiated. The rows of a
    yielded block may be changed before the next one is requested.
    """
    assert comparison.weight_A is not None, "no backward yet"
    share = 1 / num_ranks(comparison.group)
    if comparison.keep_row_gradient:
        gradient_SD = comparison.row_gradient_SD
        if gradient_SD is not None:
            yield 0, comparison.num_columns, gradient_SD * share if share < 1 else gradient_SD
        return
    for first, last in comparison.blocks:
        logit_gradient_AC = _logit_gradient(comparison, _block(comparison, first, last))
        yield first, last, _product(comparison, logit_gradient_AC.T, comparison.images_AD) * share


class _CrossEntropy(torch.autograd.Function):
    """Connects the images with their loss; the rows' side is in the comparison."""

    @staticmethod
    def forward(
        ctx: Any, images_BD: Tensor, anchor: Tensor, comparison: Comparison
    ) -> tuple[Tensor, Tensor]:
        ctx.comparison, ctx.dtype = comparison, images_BD.dtype
        with torch.autocast(images_BD.device.type, enabled=False):
            comparison.images_AD = gather(images_BD.detach().to(comparison.dtype), comparison.group)
            loss, accuracy = _forward(comparison)
        ctx.mark_non_differentiable(accuracy)
        return loss, accuracy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        comparison = ctx.comparison
        with torch.autocast(gradients[0].device.type, enabled=False):
            images_gradient_BD = _backward(comparison, gradients[0].to(comparison.dtype))
        return images_gradient_BD.to(ctx.dtype), None, None


def _forward(c: Comparison) -> tuple[Tensor, Tensor]:
    """Returns (mean loss, accuracy) of this rank's images."""
    start_A = c.images_AD.new_full((len(c.images_AD),), -torch.inf)
    log_sum_A, best_A = start_A, start_A
    found_A2 = c.images_AD.new_zeros(len(c.images_AD), 2)  # the target's logit and cosine
    for first, last in c.blocks:
        block = _block(c, first, last)
        if c.is_plain:  # the common case, with the kernel that is made for it
            c.kept = block._replace(logits_AC=F.log_softmax(block.logits_AC, 1))
            correct_A = block.target_cosines_A1[:, 0] > block.best_other_A
            return F.nll_loss(c.kept.logits_AC, block.columns_A1[:, 0]), correct_A.float().mean()
        log_sum_A = torch.logaddexp(log_sum_A, block.logits_AC.logsumexp(1))
        best_A = torch.maximum(best_A, block.best_other_A)
        target_A2 = torch.cat([block.target_logits_A1, block.target_cosines_A1], 1)
        found_A2 = torch.where(block.here_A1, target_A2, found_A2)
        c.kept = block if len(c.blocks) == 1 else None
    largest_2A = reduce_max(torch.stack([log_sum_A, best_A]), c.group)
    shares_A3 = torch.cat([(log_sum_A - largest_2A[0]).exp()[:, None], found_A2], 1)
    total_A, target_A, cosine_A = reduce_sum(shares_A3, c.group).unbind(1)
    c.log_sum_A = largest_2A[0] + total_A.log()
    rank, size = rank_of(c.group), len(c.images_AD) // num_ranks(c.group)
    mine = slice(rank * size, (rank + 1) * size)
    correct_A = cosine_A > largest_2A[1]
    return (c.log_sum_A - target_A)[mine].mean(), correct_A[mine].float().mean()


def _block(c: Comparison, first: int, last: int) -> _Block:
    """Returns the logits s (cos - m [target]) - log q of the columns [first, last)."""
    cosines_AC = _product(c, c.images_AD, c.unit_rows(first, last).T)
    columns_A1, here_A1 = _within(c.columns_AK[:, :1], first, last)
    own_A1 = cosines_AC.gather(1, columns_A1)
    for k in range(1, c.columns_AK.shape[1]):  # an image's other true classes are not negatives
        _put(cosines_AC, *_within(c.columns_AK[:, k : k + 1], first, last), _HIDDEN)
    if c.padding_S is not None:
        cosines_AC.masked_fill_(c.padding_S[first:last], _HIDDEN)
    _put(cosines_AC, columns_A1, here_A1, _HIDDEN)
    best_other_A = cosines_AC.amax(1)
    lowered_A, slope_A = apply_margin(own_A1[:, 0], loss=c.settings.loss, margin=c.settings.margin)
    target_logits_A1 = c.settings.scale * lowered_A[:, None]
    logits_AC = cosines_AC.mul_(c.settings.scale)
    if c.log_q_S is not None:
        log_q_C = c.log_q_S[first:last]
        logits_AC.sub_(log_q_C)
        target_logits_A1 = target_logits_A1 - log_q_C[columns_A1]
    _put(logits_AC, columns_A1, here_A1, target_logits_A1)
    return _Block(
        logits_AC, columns_A1, here_A1, target_logits_A1, slope_A[:, None], own_A1, best_other_A
    )


def _within(columns_A1: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Returns (column within the block or 0, whether it is in the block)."""
    here_A1 = (columns_A1 >= first) & (columns_A1 < last)
    return torch.where(here_A1, columns_A1 - first, 0), here_A1


def _put(matrix_AC: Tensor, columns_A1: Tensor, here_A1: Tensor, value: Tensor | float) -> None:
    """Sets one number per row where `here`; with fixed shapes, without waiting for the device."""
    old_A1 = matrix_AC.gather(1, columns_A1)
    matrix_AC.scatter_(1, columns_A1, torch.where(here_A1, value, old_A1))


def _backward(c: Comparison, gradient: Tensor) -> Tensor:
    """Returns the gradient of this rank's images and stores what the rows' gradient needs."""
    assert c.weight_A is None, "the class head's loss is differentiated only once"
    size = len(c.images_AD) // num_ranks(c.group)
    c.weight_A = (gather(gradient.reshape(1), c.group) / size).repeat_interleave(
        size, output_size=len(c.images_AD)
    )
    images_gradient_AD = torch.zeros_like(c.images_AD)
    row_gradients_CD = []
    for first, last in c.blocks:
        block = c.kept if c.kept is not None else _block(c, first, last)
        c.kept = None
        gradient_AC = _logit_gradient(c, block)
        images_gradient_AD += _product(c, gradient_AC, c.unit_rows(first, last))
        if c.keep_row_gradient:
            row_gradients_CD.append(_product(c, gradient_AC.T, c.images_AD))
    if row_gradients_CD:
        one = len(row_gradients_CD) == 1
        c.row_gradient_SD = row_gradients_CD[0] if one else torch.cat(row_gradients_CD)
    return sum_and_scatter(images_gradient_AD, c.group)


def _logit_gradient(c: Comparison, block: _Block) -> Tensor:
    """Returns s w (softmax - [target] slope), the gradient of the cosines; overwrites the logits.

    w is the weight of an image in the sum of all ranks' losses.
    """
    assert c.weight_A is not None
    weight_A1, columns_A1 = c.weight_A[:, None], block.columns_A1
    if c.is_plain:
        loss_gradient_AC = torch.zeros_like(block.logits_AC).scatter_(1, columns_A1, -weight_A1)
        gradient_AC = torch.ops.aten._log_softmax_backward_data(
            loss_gradient_AC, block.logits_AC, 1, block.logits_AC.dtype
        )
        target_A1 = gradient_AC.gather(1, columns_A1)
    else:
        gradient_AC = block.logits_AC.sub_(c.log_sum_A[:, None]).exp_().mul_(weight_A1)
        target_A1 = gradient_AC.gather(1, columns_A1) - weight_A1
    _put(gradient_AC, columns_A1, block.here_A1, target_A1 * block.slope_A1)
    return gradient_AC.mul_(c.settings.scale)


def _product(c: Comparison, left: Tensor, right: Tensor) -> Tensor:
    """Returns the product of two matrices in full precision, even if its factors are rounded."""
    if c.product_dtype is None:
        return left @ right
    left, right = left.to(c.product_dtype), right.to(c.product_dtype)
    if left.is_cuda:  # only CUDA multiplies short factors into a long result
        return torch.mm(left, right, out_dtype=c.dtype)
    return (left @ right).to(c.dtype)
