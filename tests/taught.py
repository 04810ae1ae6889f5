"""A teacher's folder with vectors that a test chooses."""

from pathlib import Path

import numpy as np

from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards
from openmofi.train.shard_reinforcer import _table, teacher_shards
from openmofi.train.teacher import ENTITIES, IMAGES, STORE_VERSION


def write_teacher(
    folder: Path,
    card: dict,
    *,
    images: np.ndarray,
    captions: np.ndarray,
    names: np.ndarray,
    descriptions: np.ndarray,
) -> None:
    """Writes vectors of images [n, versions, dim] and of texts [n or classes, dim]."""
    columns = {
        IMAGES: {"image": images, "caption": captions},
        ENTITIES: {"name": names, "description": descriptions},
    }

    def rows_of(shard: Shard) -> ShardResult:
        found = {name: all_[shard.start : shard.stop] for name, all_ in columns[shard.kind].items()}
        return ShardResult(_table(found), folder=shard.kind, mapped=True)

    shards = teacher_shards(len(images), len(names))
    freeze_plan(folder, shards, card | {"store_version": STORE_VERSION})
    run_shards(lambda: rows_of, shards, out=folder)
