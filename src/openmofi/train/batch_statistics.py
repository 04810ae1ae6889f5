"""Running statistics of batch norm: updated once per step, however many passes the step takes.

Micro-batches pass the towers twice, and activations may be computed again for the gradient; each
pass updates the statistics. Here the statistics of the first passes are pooled into those that the
whole batch would have given, if each layer had seen the same inputs.

Legend: B images of a step, b of one pass, n numbers per channel that a layer sees in a pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from openmofi.train.distributed import SharedBatchNorm2d


class BatchStatistics:
    """The batch norms of towers in the passes of a step: begin, before_pass, after_pass, end."""

    def __init__(self, towers: torch.nn.Module):
        towers.train()  # where some keep what they have
        modules = [module for module in towers.modules() if isinstance(module, _BatchNorm)]
        self._norms = [m for m in modules if m.running_mean is not None and m.training]
        self._sizes: dict[_BatchNorm, float] = {}
        """n / b of each layer."""
        self._before: list[Tensor] = []
        self._passes: list[tuple[int, list[Tensor]]] = []
        self._hooks: list[RemovableHandle] = []

    def begin(self) -> None:
        """Records the statistics before the step."""
        self._before, self._passes = self._now(), []

    def before_pass(self) -> None:
        """Records the size of the layers' inputs in the first step; it never changes."""
        if not self._sizes:
            self._hooks = [norm.register_forward_pre_hook(self._note) for norm in self._norms]

    def _note(self, norm: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, _BatchNorm)
        ranks = norm.world.size if isinstance(norm, SharedBatchNorm2d) else 1
        self._sizes[norm] = inputs[0].numel() // inputs[0].shape[1] * ranks

    @torch.no_grad()
    def after_pass(self, count: int, *, more: bool) -> None:
        """Records the statistics after a pass over `count` images, and undoes it if more follow."""
        if self._hooks:
            self._sizes = {norm: n / count for norm, n in self._sizes.items()}
        while self._hooks:
            self._hooks.pop().remove()
        self._passes.append((count, self._now()))
        if more:  # with a graph, nothing may be written between the passes
            self._put(self._before)

    @torch.no_grad()
    def end(self, undone: Tensor) -> None:
        """Updates the statistics once.

        Args:
            undone: 0-d; true restores those before the step, without waiting for the device.
        """
        after = self._passes[0][1] if len(self._passes) == 1 else self._pooled()
        self._put([torch.where(undone, *pair) for pair in zip(self._before, after, strict=True)])

    def _pooled(self) -> list[Tensor]:
        """Returns the statistics that one pass over all images would have given."""
        pooled: list[Tensor] = []
        for number, norm in enumerate(self._norms):
            place = slice(3 * number, 3 * number + 3)
            passes = [(count, after[place]) for count, after in self._passes]
            pooled += self._pooled_norm(norm, self._before[place], passes)
        return pooled

    def _pooled_norm(
        self, norm: _BatchNorm, before: list[Tensor], passes: list[tuple[int, list[Tensor]]]
    ) -> list[Tensor]:
        """Returns the pooled mean, variance and number of steps of a layer.

        A pass moves a statistic towards the batch's own by a share of their distance, the momentum.
        The unbiased variance of all is sum((n - 1) var + n (mean - mean of all)^2) / (sum(n) - 1).
        """
        number = passes[0][1][2]
        images = sum(count for count, _ in passes)
        share = norm.momentum
        if not share or norm not in self._sizes:
            means = [sum(count / images * after[i] for count, after in passes) for i in (0, 1)]
            return [*map(torch.as_tensor, means), number]
        means, variances = (
            torch.stack([before[i] + (after[i] - before[i]) / share for _, after in passes])
            for i in (0, 1)
        )
        seen = means.new_tensor([[count * self._sizes[norm]] for count, _ in passes])
        mean = (seen * means).sum(0) / seen.sum()
        squares = (seen - 1) * variances + seen * (means - mean).square()
        variance = squares.sum(0) / (seen.sum() - 1)
        return [before[0].lerp(mean, share), before[1].lerp(variance, share), number]

    def _buffers(self) -> list[Tensor]:
        found = []
        for norm in self._norms:
            found += [norm.running_mean, norm.running_var, norm.num_batches_tracked]
        return found

    def _now(self) -> list[Tensor]:
        return [buffer.clone() for buffer in self._buffers()]

    def _put(self, values: list[Tensor]) -> None:
        for buffer, value in zip(self._buffers(), values, strict=True):
            buffer.copy_(value)
