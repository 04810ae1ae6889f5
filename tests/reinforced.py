"""Tars named and shaped as those of Apple's reinforced datasets."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import torch

from conftest import write_tar

OPS = [[[6, 0.26999998092651367], [11, 178.5]], [[0, 0.0], [5, -9.0]], [[13, 0.0], [4, -30.453]]]
"""RandAugment's operations of three versions."""


def unit(rng: np.random.Generator, *shape: int, teachers: int = 2) -> np.ndarray:
    """Returns vectors of `teachers` parts of unit length side by side, float32."""
    parts = rng.normal(size=(*shape[:-1], teachers, shape[-1] // teachers))
    parts /= np.linalg.norm(parts, axis=-1, keepdims=True)
    return parts.reshape(shape).astype(np.float32)


def sample(rng: np.random.Generator, number: int, *, dim: int = 16, **changes) -> dict:
    """Returns what the datasets tell of an image: three versions and three synthetic captions."""
    uid = f"{number:032x}"
    boxes = [[0, 0, 32, 32], [4, 2, 20, 24], [10, 11, 21, 20]]
    told = {
        "uid": uid,
        "sha256": "",
        "url": f"http://example.org/{number}.jpg",
        "syn_text": [f"synthetic {number}", f"another {number}", f"synthetic {number}"],
        "param_aug": [[box, ops] for box, ops in zip(boxes, OPS, strict=True)],
        "image_emb": unit(rng, 3, dim),
        "text_emb": unit(rng, 4, dim),
    }
    return told | changes


def members(told: dict, *, bfloat16: bool = False, as_list: bool = False) -> dict[str, bytes]:
    """Returns a sample's files by name."""
    uid, arrays = told["uid"], {name: told[name] for name in ("image_emb", "text_emb")}
    file = io.BytesIO()
    if bfloat16:
        torch.save({n: torch.from_numpy(a).bfloat16() for n, a in arrays.items()}, file)
    else:
        np.savez(file, **arrays)
    kind, raw = ("pth.gz", gzip.compress(file.getvalue())) if bfloat16 else ("npz", file.getvalue())
    parameters = told["param_aug"] if as_list else json.dumps(told["param_aug"])
    return {
        f"{uid}.url.txt": told["url"].encode(),
        f"{uid}.syn.json": json.dumps({"syn_text": told["syn_text"]}).encode(),
        f"{uid}.paug.json": json.dumps({"param_aug": parameters}).encode(),
        f"{uid}.{kind}": raw,
        f"{uid}.json": json.dumps({"uid": uid, "sha256": told["sha256"]}).encode(),
    }


def write_reinforced(path: Path, samples: list[dict], **how) -> Path:
    """Writes a tar of samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    for told in samples:
        files |= members(told, **how)
    return write_tar(path, files)
