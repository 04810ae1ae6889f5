"""Vectors on disk by the content of their images, which makes a second evaluation fast.

One folder per model, transform and kind of device holds pairs of files. They are written during
the work, so an interrupted evaluation continues where it stopped:

    UUID.vectors.npy   float32 [n, dim], unit length
    UUID.keys.npy      bytes [n, 24]: BLAKE2b of the encoded image and crop (16), of the row (8)

The keys are written last: a pair counts once they exist. A row that no longer matches its checksum
is computed again. Of several rows of one image, the newest counts.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib.format import open_memmap

import openmofi
from openmofi.files.folders import replace_file
from openmofi.images.look import Box
from openmofi.label.encoder import model_digest
from openmofi.model import MofiModel

_KEY_BYTES = 16
_CHECK_BYTES = 8
_DAMAGED = (OSError, ValueError, EOFError, OverflowError, SyntaxError, TypeError, TokenError)
"""What NumPy raises for a damaged .npy file; the last ones come from its header, a Python dict."""


def content_key(data: bytes, crop: Box | None = None) -> bytes:
    """Returns the key of this image, or of this part of it."""
    digest = hashlib.blake2b(data, digest_size=_KEY_BYTES)
    if crop is not None:
        digest.update(b"crop" + repr(crop).encode())
    return digest.digest()


def model_folder(cache: Path, source: str, model: MofiModel) -> Path:
    """Returns the folder of a model that was loaded from a directory or the hub."""
    transform = json.dumps(asdict(model.transform), sort_keys=True)
    # Another device or version may round or decode differently.
    made_by = f"{transform} {model.device.type} {openmofi.__version__}"
    key = hashlib.blake2b(made_by.encode(), digest_size=8).hexdigest()
    return cache / "vectors" / f"{model_digest(source)}-{key}"


class VectorCache:
    """The vectors of one model."""

    def __init__(self, folder: Path, dim: int):
        self.folder, self.dim = folder, dim
        self._parts: list[np.ndarray] = []
        self._place: dict[bytes, tuple[int, int, bytes]] = {}  # part, row, checksum
        folder.mkdir(parents=True, exist_ok=True)
        parts = folder.glob("*.keys.npy")
        for keys in sorted(parts, key=lambda path: (path.stat().st_mtime_ns, path.name)):
            self._open(keys)

    def get(self, key: bytes) -> np.ndarray | None:
        """Returns the vector of an image, or None."""
        place = self._place.get(key)
        if place is None:
            return None
        part, row, check = place
        vector = np.array(self._parts[part][row])
        return vector if _check(key, vector) == check else None

    def put(self, keys: list[bytes], vectors: np.ndarray) -> None:
        """Stores vectors, one per key."""
        if not keys:
            return
        name = uuid.uuid4().hex
        vectors = vectors.astype(np.float32)
        named = [key + _check(key, vector) for key, vector in zip(keys, vectors, strict=True)]
        rows = np.frombuffer(b"".join(named), np.uint8).reshape(len(keys), -1)
        for kind, array in (("vectors", vectors), ("keys", rows)):
            with replace_file(self.folder / f"{name}.{kind}.npy") as partial:
                np.save(partial, array)
        self._open(self.folder / f"{name}.keys.npy")

    def _open(self, path: Path) -> None:
        """Adds one pair of files; skips a damaged pair, whose vectors can be computed again."""
        try:
            # Not np.load(), which opens any file that begins with "PK" as a ZIP archive.
            keys = open_memmap(path, mode="r")
            vectors = open_memmap(path.with_name(path.name.replace("keys", "vectors")), mode="r")
        except _DAMAGED:
            return
        if (keys.dtype, vectors.dtype) != (np.uint8, np.float32):
            return
        width = _KEY_BYTES + _CHECK_BYTES
        if keys.shape[1:] != (width,) or vectors.shape != (len(keys), self.dim):
            return
        number = len(self._parts)
        self._parts.append(vectors)
        for row, named in enumerate(np.asarray(keys)):
            data = named.tobytes()
            self._place[data[:_KEY_BYTES]] = (number, row, data[_KEY_BYTES:])


def _check(key: bytes, vector: np.ndarray) -> bytes:
    """Returns the checksum of a row: of its image's key and its vector."""
    return hashlib.blake2b(key + vector.tobytes(), digest_size=_CHECK_BYTES).digest()
