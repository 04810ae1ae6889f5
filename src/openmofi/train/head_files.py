"""A trained class head as files: rows in safetensors, and the entity id of each row.

Small heads are one file, `rows.safetensors` with the tensor `rows`. Larger ones are several,
`rows-00001-of-00003.safetensors` with the tensor `rows.00001` and so on, listed as Hugging Face
lists the parts of a model: `rows.safetensors.index.json` names the file of each tensor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from openmofi.errors import InputError
from openmofi.train.collectives import rank_of, row_blocks

if TYPE_CHECKING:
    from openmofi.train.entity_head import EntityHead

_WHOLE, _INDEX, _IDS = "rows.safetensors", "rows.safetensors.index.json", "ids.json"
_MOST_BYTES = 2_000_000_000
"""Of one file, and of what rank 0 ever collects."""


def save_head(head: EntityHead, ids: list[str], out: Path) -> None:
    """Writes the rows and the entity id of each row.

    All ranks of the head's group call it; rank 0 writes, one file's rows in its memory at a time.
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
    for old in [*out.glob("rows*.safetensors"), out / _INDEX]:
        old.unlink(missing_ok=True)
    names = [f"rows.{number:05d}" for number in range(1, len(bounds) + 1)]
    files = [f"rows-{name[5:]}-of-{len(names):05d}.safetensors" for name in names]
    if len(names) == 1:
        names, files = ["rows"], [_WHOLE]
    for name, file, block_CD in zip(names, files, blocks, strict=True):
        save_file({name: block_CD}, out / file)
    if len(names) > 1:
        index = {
            "metadata": {"total_size": 4 * dim * head.num_classes},
            "weight_map": dict(zip(names, files, strict=True)),
        }
        (out / _INDEX).write_text(json.dumps(index, indent=2) + "\n")
    (out / _IDS).write_text(json.dumps(ids, ensure_ascii=False))


def load_head_rows(folder: Path) -> tuple[Float[Tensor, "N D"], list[str]]:
    """Returns (unit class rows, entity ids) as `save_head` wrote them.

    Raises:
        InputError: a file is missing, or there are not as many ids as rows.
    """
    files = {"rows": _WHOLE}
    if (folder / _INDEX).is_file():
        files = json.loads((folder / _INDEX).read_text())["weight_map"]
    missing = [file for file in [*files.values(), _IDS] if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"The entity head {str(folder)!r} lacks {missing[0]!r}; copy the whole folder, or "
            "train again."
        )
    ids = json.loads((folder / _IDS).read_text())
    rows_ND = torch.cat([_read(folder / files[name], name) for name in sorted(files)])
    if len(rows_ND) != len(ids):
        raise InputError(
            f"The entity head {str(folder)!r} has {len(rows_ND)} rows and {len(ids)} ids; copy the "
            "whole folder, or train again."
        )
    return rows_ND, ids


def _read(path: Path, name: str) -> Tensor:
    """Returns one file's rows, normalised."""
    with safe_open(path, framework="pt") as tensors:
        return F.normalize(tensors.get_tensor(name).float(), dim=-1)
