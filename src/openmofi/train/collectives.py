"""The few exchanges between ranks that the class head needs; without a group they do nothing.

Legend: B images of this rank, A images of all ranks (rank by rank).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

_ROWS_SENT_AT_ONCE = 65_536


def num_ranks(group: dist.ProcessGroup | None) -> int:
    """Returns the number of ranks that share the work."""
    return 1 if group is None else dist.get_world_size(group)


def rank_of(group: dist.ProcessGroup | None) -> int:
    """Returns this process's number in the group."""
    return 0 if group is None else dist.get_rank(group)


def gather(local: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Returns the concatenated tensors of all ranks, which have the same shape."""
    if group is None or num_ranks(group) == 1:
        return local
    everyone = local.new_empty(num_ranks(group) * len(local), *local.shape[1:])
    dist.all_gather_into_tensor(everyone, local.contiguous(), group=group)
    return everyone


def sum_and_scatter(everyone_AD: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Returns this rank's part of the sum over ranks: the backward pass of `gather`."""
    if group is None or num_ranks(group) == 1:
        return everyone_AD
    size = len(everyone_AD) // num_ranks(group)
    if dist.get_backend(group) == "gloo":  # has no reduce_scatter
        dist.all_reduce(everyone_AD, group=group)
        return everyone_AD[rank_of(group) * size :][:size]
    mine_BD = everyone_AD.new_empty(size, *everyone_AD.shape[1:])
    dist.reduce_scatter_tensor(mine_BD, everyone_AD, group=group)
    return mine_BD


def reduce_max(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Returns the largest of the ranks' values, element by element, in place."""
    if group is not None and num_ranks(group) > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX, group=group)
    return values


def reduce_sum(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Returns the sum of the ranks' values, element by element, in place."""
    if group is not None and num_ranks(group) > 1:
        dist.all_reduce(values, group=group)
    return values


def row_ranges(num_classes: int, world_size: int) -> list[tuple[int, int]]:
    """Returns (first class, end) of every rank, split as by torch.chunk: the last have fewer."""
    size = -(-num_classes // world_size)
    edges = [min(rank * size, num_classes) for rank in range(world_size + 1)]
    return list(itertools.pairwise(edges))


def row_blocks(
    local_ND: Tensor, bounds: list[tuple[int, int]], total: int, group: dist.ProcessGroup | None
) -> Iterator[Tensor]:
    """Yields, on rank 0 and in main memory, the rows [first, last) of each of the bounds.

    The other ranks send their parts and yield nothing; all ranks must exhaust the iterator. In
    addition to its own rows, no rank ever holds more than one block.

    Args:
        local_ND: the rows of this rank, split as by `row_ranges`.
        bounds: bounds of the blocks, over all ranks.
        total: number of rows, over all ranks.
        group: the ranks.
    """
    ranges, me = row_ranges(total, num_ranks(group)), rank_of(group)
    for first, last in bounds:
        block_CD = torch.empty(last - first if me == 0 else 0, local_ND.shape[1])
        for rank, (start, end) in enumerate(ranges):
            for low in range(max(first, start), min(last, end), _ROWS_SENT_AT_ONCE):
                high = min(low + _ROWS_SENT_AT_ONCE, last, end)
                if rank == me == 0:
                    block_CD[low - first : high - first] = local_ND[low - start : high - start]
                elif me == 0:
                    assert group is not None
                    part_CD = local_ND.new_empty(high - low, local_ND.shape[1])
                    dist.recv(part_CD, dist.get_global_rank(group, rank), group=group)
                    block_CD[low - first : high - first] = part_CD
                elif rank == me:
                    assert group is not None
                    part_CD = local_ND[low - start : high - start].contiguous()
                    dist.send(part_CD, dist.get_global_rank(group, 0), group=group)
        if me == 0:
            yield block_CD
