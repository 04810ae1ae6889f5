"""The processes of a run: this one only, or all those that torchrun started.

Every loss is the mean over a process's own images; the objective is the mean over processes. So a
process's features get the gradient of the SUM of the processes' losses, and the owner of the
weights (DDP, FSDP, the entity head) divides by the number of processes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from openmofi.errors import SettingsError
from openmofi.model.mofi import pick_device
from openmofi.train import collectives


@dataclass(frozen=True)
class World:
    """The processes that train together, from the view of one of them."""

    rank: int
    size: int
    device: torch.device
    group: Any = None
    """Their process group; None for one process."""
    checkpoint_group: Any = None
    """A second group of the same processes, for checkpoints, which are written during the steps."""

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Returns this process's part of a batch.

        Raises:
            SettingsError: the batch cannot be divided evenly.
        """
        if batch_size % self.size:
            raise SettingsError(
                f"batch_size {batch_size} cannot be shared by {self.size} processes; set it to a "
                f"multiple, such as --set batch_size={-(-batch_size // self.size) * self.size}."
            )
        each = batch_size // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def barrier(self) -> None:
        """Waits until all processes have arrived here."""
        self.any(False)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Lets the first process go through before all others."""
        if not self.is_first:
            self.barrier()
        try:
            yield
        finally:
            if self.is_first:
                self.barrier()

    def any(self, here: bool) -> bool:
        """Returns whether something is true in any process; all processes must call it."""
        if self.size == 1:
            return here
        flag = torch.tensor(int(here))
        dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.group)
        return bool(flag)

    @property
    def here(self) -> int:
        """Number of processes on this machine, which share its memory."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.size > 1 else 1

    def sum(self, here: int) -> int:
        """Returns the sum of a number over the processes; all processes must call it."""
        if self.size == 1:
            return here
        total = torch.tensor(here)
        dist.all_reduce(total, group=self.group)
        return int(total)

    def all_gather(self, rows: Tensor) -> Tensor:
        """Returns the concatenated rows of all processes, without gradient."""
        if self.size == 1:
            return rows
        return collectives.gather(rows, self.group)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Yields the processes that torchrun started, or only this one.

    Args:
        device: auto, cpu, cuda or cuda:N; each of several processes takes the GPU of its number.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        with warnings.catch_warnings():
            # Each checkpoint warns about this, from its own thread.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield World(0, 1, pick_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    with_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    found = pick_device(f"cuda:{local_rank}" if with_gpu else "cpu")
    if found.type == "cuda":
        torch.cuda.set_device(found)
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("cpu:gloo,cuda:nccl" if found.type == "cuda" else "gloo")
    try:
        apart = dist.new_group(backend="gloo")
        yield World(dist.get_rank(), dist.get_world_size(), found, dist.group.WORLD, apart)
    finally:
        if ours:
            dist.destroy_process_group()


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World) -> Tensor:
        ctx.world = world
        return world.all_gather(rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return collectives.sum_and_scatter(grads[0].contiguous(), ctx.world.group), None


def gather(rows_BD: Float[Tensor, "b D"], world: World | None) -> Float[Tensor, "B D"]:
    """Returns the rows of all processes; gradients flow back to the process of each row."""
    if world is None or world.size == 1:
        return rows_BD
    result = _Gather.apply(rows_BD, world)
    assert isinstance(result, Tensor)
    return result


class SharedBatchNorm2d(torch.nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device.

    torch.nn.SyncBatchNorm works only on GPUs.
    """

    world: Any
    """The World, set by share_batch_norm."""

    def forward(self, input: Tensor) -> Tensor:
        """Returns the normalised input [batch, channels, h, w]."""
        if not self.training:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._over_all(input.to(self.weight.dtype)).to(input.dtype)

    def _over_all(self, input: Tensor) -> Tensor:
        mean = self._average(input.mean((0, 2, 3)))
        centred = input - mean[:, None, None]
        variance = self._average(centred.square().mean((0, 2, 3)))
        if self.track_running_stats:
            assert self.running_mean is not None
            assert self.running_var is not None
            count = input.numel() // input.shape[1] * self.world.size
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * count / (count - 1), momentum)
                if self.num_batches_tracked is not None:
                    self.num_batches_tracked.add_(1)
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]

    def _average(self, values: Tensor) -> Tensor:
        return gather(values[None], self.world).mean(0)


def share_batch_norm(network: torch.nn.Module, world: World) -> None:
    """Makes every batch norm of a network see the images of all processes."""
    for module in network.modules():
        if world.size > 1 and isinstance(module, torch.nn.BatchNorm2d):
            module.__class__ = SharedBatchNorm2d
            module.__dict__["world"] = world
