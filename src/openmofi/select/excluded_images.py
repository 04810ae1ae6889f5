"""Images that a selection must not contain, such as those of a benchmark -> their hashes.

Any input that `label` reads is accepted; captions are not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openmofi.errors import InputError
from openmofi.images.look import fetch, look
from openmofi.pairs import ImageReader, find_shards, read_shard
from openmofi.progress import track
from openmofi.refused import Refused

_PLACE = ("key", "shard", "offset", "size", "path")


@dataclass(frozen=True)
class KnownImages:
    """The hashes and places of the images that could be read."""

    places: list[dict[str, Any]]
    """root, key, shard, offset, size and path of each."""
    digest: np.ndarray
    """uint64 [n, 2]: the first half of the sha256."""
    phash: np.ndarray
    has_phash: np.ndarray
    unreadable: int


def hash_images(inputs: Sequence[str]) -> KnownImages:
    """Reads and hashes every image of some inputs.

    Raises:
        InputError: an input is missing, or holds no readable image.
    """
    places, digests, phashes, unreadable = [], [], [], 0
    for source in inputs:
        before = len(places)
        for place, data in _images_of(source):
            seen = data if isinstance(data, Refused) else look(data, None)
            if isinstance(seen, Refused):
                unreadable += 1
                continue
            places.append(place)
            digests.append(seen.sha256[:16])
            phashes.append(seen.phash)
        if len(places) == before:
            raise InputError(
                f"--exclude {source!r} holds no readable image; expected the images whose "
                "duplicates are to be refused."
            )
    return KnownImages(
        places,
        np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
        np.array([phash or 0 for phash in phashes], np.uint64),
        np.array([phash is not None for phash in phashes], bool),
        unreadable,
    )


def _images_of(source: str) -> Iterable[tuple[dict[str, Any], bytes | Refused]]:
    """Yields (place, encoded bytes or a Refused) of an input's images."""
    found = find_shards(source)
    reader = ImageReader(found.root)
    for shard in track(found.shards, "hash excluded images", unit="shards"):
        for row in read_shard(found.root, shard).table.select(_PLACE).to_pylist():
            if row["offset"] < 0 and not row["path"]:
                continue  # a caption without an image
            place = {"root": str(found.root), **row}
            yield place, fetch(reader.read, row)
