"""Vectors on the disk by the content of their pictures, so that a second evaluation is quick.

One folder per model, transform and kind of device; in it pairs of files, written as the work goes
on, so that an evaluation that was ended continues where it was:

    UUID.vectors.npy   float32 [n, dim], unit length
    UUID.keys.npy      [n, 16] bytes: BLAKE2b of the encoded picture and of the crop

The keys come last: a pair counts once they are there. A row whose length is not 1 is damaged and is
computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path

import numpy as np

import openmofi
from openmofi.label.encoder import model_digest
from openmofi.model import MofiModel
from openmofi.pictures import Box

_KEY_BYTES = 16
_UNIT = 1e-4
"""How far from 1 the length of a stored vector may be."""


def default_cache() -> Path:
    """Returns OPENMOFI_CACHE, or openmofi in the user's cache folder."""
    given = os.environ.get("OPENMOFI_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else base / "openmofi"


def content_key(data: bytes, crop: Box | None = None) -> bytes:
    """Returns what tells this picture, and this part of it, from others."""
    digest = hashlib.blake2b(data, digest_size=_KEY_BYTES)
    if crop is not None:
        digest.update(b"crop" + repr(crop).encode())
    return digest.digest()


def model_folder(cache: Path, source: str, model: MofiModel) -> Path:
    """Returns the folder of a model that was loaded from a directory or the hub."""
    transform = json.dumps(asdict(model.transform), sort_keys=True)
    # Another device or version may round otherwise, or decode otherwise.
    made_by = f"{transform} {model.device.type} {openmofi.__version__}"
    key = hashlib.blake2b(made_by.encode(), digest_size=8).hexdigest()
    return cache / "vectors" / f"{model_digest(source)}-{key}"


class VectorCache:
    """The vectors of one model."""

    def __init__(self, folder: Path, dim: int):
        self.folder, self.dim = folder, dim
        self._parts: list[np.ndarray] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for keys in sorted(folder.glob("*.keys.npy")):
            self._open(keys)

    def get(self, key: bytes) -> np.ndarray | None:
        """Returns the vector of a picture, or None."""
        place = self._place.get(key)
        if place is None:
            return None
        vector = np.array(self._parts[place[0]][place[1]])
        return vector if abs(float(np.linalg.norm(vector)) - 1) < _UNIT else None

    def put(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Stores vectors, one per key."""
        if not keys:
            return
        name = uuid.uuid4().hex
        rows = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY_BYTES)
        for kind, array in (("vectors", vectors.astype(np.float32)), ("keys", rows)):
            temporary = self.folder / f".{name}.{kind}.npy"
            np.save(temporary, array)
            temporary.replace(self.folder / f"{name}.{kind}.npy")
        self._open(self.folder / f"{name}.keys.npy")

    def _open(self, path: Path) -> None:
        """Takes in one pair of files; a damaged pair is passed over, for it can be made again."""
        try:
            keys = np.load(path)
            vectors = np.load(path.with_name(path.name.replace("keys", "vectors")), mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return
        if vectors.shape != (len(keys), self.dim) or keys.shape[1:] != (_KEY_BYTES,):
            return
        number = len(self._parts)
        self._parts.append(vectors)
        for row, key in enumerate(keys):
            self._place[key.tobytes()] = (number, row)
