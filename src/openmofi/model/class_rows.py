"""The entity rows that a training run stores with its model -> vectors and their ids.

A small head is one file, `rows.safetensors` with the tensor `rows`. A larger one has several files,
`rows-00001-of-00003.safetensors` with the tensor `rows.00001` and so on. They are listed as Hugging
Face lists the parts of a model: `rows.safetensors.index.json` names the file of each tensor.
`ids.json` holds the entity of each row, `images.json` the number of its training images.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F

from openmofi.errors import InputError

FOLDER = "entity_head"
"""Folder of the rows in a model's directory."""
WHOLE, INDEX, IDS, IMAGES = (
    "rows.safetensors",
    "rows.safetensors.index.json",
    "ids.json",
    "images.json",
)


def load_head_rows(folder: Path) -> tuple[Float[Tensor, "N D"], list[str]]:
    """Returns (unit class rows, entity ids) as `save_head` wrote them.

    Raises:
        InputError: a file is missing, or there are not as many ids as rows.
    """
    files = {"rows": WHOLE}
    if (folder / INDEX).is_file():
        files = json.loads((folder / INDEX).read_text())["weight_map"]
    missing = [file for file in [*files.values(), IDS] if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"The entity head {str(folder)!r} lacks {missing[0]!r}; copy the whole folder, or "
            "train again."
        )
    ids = json.loads((folder / IDS).read_text())
    parts = []
    for name in sorted(files):
        with safe_open(folder / files[name], framework="pt") as tensors:
            parts.append(F.normalize(tensors.get_tensor(name).float(), dim=-1))
    rows_ND = torch.cat(parts)
    if len(rows_ND) != len(ids):
        raise InputError(
            f"The entity head {str(folder)!r} has {len(rows_ND)} rows and {len(ids)} ids; copy the "
            "whole folder, or train again."
        )
    return rows_ND, ids


def load_image_counts(folder: Path) -> dict[str, int]:
    """Returns {entity id: number of its training images}; empty if the head does not state it."""
    if not (folder / IMAGES).is_file():
        return {}
    ids, counts = (json.loads((folder / name).read_text()) for name in (IDS, IMAGES))
    return dict(zip(ids, counts, strict=True))
