"""Vectors of a run's images as its encoder sees them now, without augmentation."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.embed import Places, encode_places
from openmofi.model import MofiModel
from openmofi.train.data import TrainData
from openmofi.train.distributed import World
from openmofi.train.order import permute

_IMAGES_PER_CLASS = 16
_MOST_IMAGES = 100_000
_MOST_DRAWN = 10_000_000
"""Images among which these are sought; of more, a sample."""


def encode_data(
    model: MofiModel, data: TrainData, world: World
) -> tuple[Float[np.ndarray, "n dim"], Int[np.ndarray, " n"]]:
    """Returns (unit vectors of the readable images, their rows), in every process.

    Args:
        model: with unsharded weights in every process.
        data: the images; all processes share the work.
        world: the processes.
    """
    mine = np.arange(len(data))[world.rank :: world.size]
    places = Places(data.records(mine), data.root, {})
    vectors = np.zeros((len(data), model.dim), dtype=np.float32)
    read = np.zeros(len(data), dtype=np.float32)
    for chunk, part, _ in encode_places(model, places):
        rows = mine[chunk["place"].to_numpy()]
        vectors[rows], read[rows] = part, 1.0
    if world.size > 1:
        shares = torch.from_numpy(np.concatenate([vectors, read[:, None]], 1))
        joined = world.all_gather(shares.to(world.device)).cpu().numpy()
        joined = joined.reshape(world.size, len(data), -1).sum(0)
        vectors, read = joined[:, :-1], joined[:, -1]
    rows = np.flatnonzero(read > 0)
    return vectors[rows], rows


def class_means(
    model: MofiModel, data: TrainData, world: World, *, seed: int
) -> Float[Tensor, "classes dim"]:
    """Returns each class's mean of its images' unit vectors, scaled to length 1.

    It takes up to 16 images of a class, and 100,000 altogether; a class without any is zero.
    """
    key = random_key(seed, Purpose.CLASS_ROWS)
    order = permute(np.arange(min(len(data), _MOST_DRAWN)), total=len(data), key=key)
    targets = data.targets(order)[:, 0]
    by_class = np.argsort(targets, kind="stable")
    firsts = np.searchsorted(targets[by_class], targets[by_class])
    turn = np.empty(len(order), dtype=np.int64)  # 0 for the first image of its class, and so on
    turn[by_class] = np.arange(len(order)) - firsts
    chosen = np.argsort(turn, kind="stable")[: int((turn < _IMAGES_PER_CLASS).sum())]
    some = data.take(order[chosen[:_MOST_IMAGES]])
    vectors, rows = encode_data(model, some, world)
    sums = torch.zeros(len(data.entity_ids), model.dim)
    sums.index_add_(0, torch.from_numpy(some.targets(rows)[:, 0]), torch.from_numpy(vectors))
    return F.normalize(sums, dim=-1)
