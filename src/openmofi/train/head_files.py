"""A trained class head -> the files that `model/class_rows.py` describes and reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from openmofi.model.class_rows import IDS, IMAGES, INDEX, WHOLE
from openmofi.train.collectives import rank_of, row_blocks

if TYPE_CHECKING:
    from openmofi.train.entity_head import EntityHead

_MOST_BYTES = 2_000_000_000
"""Largest size of a file, and of the rows that rank 0 collects at once."""


def save_head(
    head: EntityHead, ids: list[str], out: Path, *, images: Sequence[int] | None = None
) -> None:
    """Writes the rows, the entity id of each row, and the number of its training images.

    All ranks of the head's group call it. Rank 0 writes, with the rows of one file in memory at a
    time.
    """
    dim = head.rows_ND.shape[1]
    size = max(1, _MOST_BYTES // (4 * dim))
    starts = range(0, head.num_classes, size)
    bounds = [(start, min(start + size, head.num_classes)) for start in starts]
    blocks = row_blocks(head.rows_ND, bounds, head.num_classes, head.group)
    if rank_of(head.group) != 0:
        assert next(blocks, None) is None
        return
    assert len(ids) == head.num_classes, "one id per class"
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("rows*.safetensors"), out / INDEX]:
        old.unlink(missing_ok=True)
    names = [f"rows.{number:05d}" for number in range(1, len(bounds) + 1)]
    files = [f"rows-{name[5:]}-of-{len(names):05d}.safetensors" for name in names]
    if len(names) == 1:
        names, files = ["rows"], [WHOLE]
    for name, file, block_CD in zip(names, files, blocks, strict=True):
        save_file({name: block_CD}, out / file)
    if len(names) > 1:
        index = {
            "metadata": {"total_size": 4 * dim * head.num_classes},
            "weight_map": dict(zip(names, files, strict=True)),
        }
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (out / IDS).write_text(json.dumps(ids, ensure_ascii=False))
    (out / IMAGES).unlink(missing_ok=True)
    if images is not None:
        (out / IMAGES).write_text(json.dumps([int(n) for n in images]))
