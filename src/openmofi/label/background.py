"""The background: a sample of the input's images, to tell how an entity looks by chance.

It is drawn once per job, by what the pairs are and not by where they stand, so that the same pairs
in another order or in other shards give the same background. It is stored beside the labels.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, UInt64

from openmofi.arrays.random_keys import Purpose, mix_words, random_key
from openmofi.errors import InputError, MismatchError
from openmofi.files.folders import replace_file
from openmofi.progress import track
from openmofi.shards import Shard

T = TypeVar("T")
BACKGROUND_FILE = "background.npz"
_FEW = 8
_SHARDS_AT_LEAST = 8
_PAIRS_PER_IMAGE = 20
"""Pairs among which each image is drawn; an input of fewer is read to its end."""


@dataclass(frozen=True)
class Background:
    """Images of other captions."""

    images: Float[np.ndarray, "n dim"]
    offered: tuple[frozenset[str], ...]
    """Per image: the entities that its caption offers, which are not background to it."""
    words: UInt64[np.ndarray, " n"]
    """Per image: 64 bits of the sha256 of its bytes."""

    def moments(self, texts: Float[np.ndarray, "e dim"], ids: Sequence[str]) -> np.ndarray:
        """Returns [e, 2]: mean and standard deviation of each entity's background cosine."""
        cosines = texts @ self.images.T
        mine = ~self.offering(ids)
        # With hardly any background left (few entities, few images), all of it is better.
        mine[mine.sum(1) < _FEW] = True
        count = mine.sum(1)
        mean = (cosines * mine).sum(1) / count
        variance = (np.square(cosines - mean[:, None]) * mine).sum(1) / count
        return np.stack([mean, np.sqrt(variance) + 1e-6], axis=1)

    def offering(self, ids: Sequence[str]) -> Bool[np.ndarray, "e n"]:
        """Returns which images have captions that offer an entity."""
        column = {entity: i for i, entity in enumerate(ids)}
        found = np.zeros((len(ids), len(self.offered)), dtype=bool)
        for image, offered in enumerate(self.offered):
            rows = [column[entity] for entity in offered if entity in column]
            found[rows, image] = True
        return found


@dataclass(frozen=True)
class BackgroundSample:
    """What one shard gives to the background."""

    images: np.ndarray
    offered: list[list[str]]
    words: np.ndarray
    draws: np.ndarray
    """Of the pairs, see `draw`."""
    refused: Counter[str]
    """Pairs that could not be used, by reason."""


def draw(pairs: pa.Table) -> UInt64[np.ndarray, " n"]:
    """Returns 64 random bits of each pair, which depend on the pair alone.

    A pair is known by its key; where keys are numbers of rows, by its caption and URL.

    Args:
        pairs: schema.PAIRS.
    """
    key = random_key(0, Purpose.BACKGROUND)
    columns = [pairs[name].to_pylist() for name in ("key", "path", "caption", "url")]
    names = [_name(*values) for values in zip(*columns, strict=True)]
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return mix_words(key, np.frombuffer(digests, "<u8"))


def _name(key: str, path: str, caption: str, url: str) -> str:
    row = path.removeprefix("row:")
    is_counted = row != path and key.endswith(f"-{row:>09}")  # as pairs/rows.py numbers them
    return f"{caption}\n{url}" if is_counted else key


def write_background(
    out: Path,
    shards: Sequence[Shard],
    wanted: int,
    *,
    draws: Callable[[Shard], np.ndarray],
    sample: Callable[[Shard, int], BackgroundSample],
) -> None:
    """Stores about `wanted` images, drawn among many more pairs.

    Args:
        out: the job's directory.
        shards: of the input.
        wanted: number of images.
        draws: returns `draw` of a shard's usable pairs; of none where it cannot be read.
        sample: takes the images of a shard whose draws are at most its second argument.

    Raises:
        InputError: no pair of the input can be used.
    """
    found: dict[Shard, np.ndarray] = {}
    order = spread_out(shards)
    for shard in order:
        if len(found) >= _SHARDS_AT_LEAST and _pairs(found) >= wanted * _PAIRS_PER_IMAGE:
            break
        found[shard] = draws(shard)
    limit = _smallest(np.concatenate(list(found.values())), wanted)
    drawn = [shard for shard, mine in found.items() if (mine <= limit).any() or not len(mine)]
    parts = [sample(shard, limit) for shard in track(drawn, "background", unit="shards")]
    for shard in order:
        if any(part.offered for part in parts):
            break
        if shard not in drawn:  # all of those are damaged
            parts.append(sample(shard, _smallest(draws(shard), wanted)))
    _write(out, parts)


def spread_out(items: Sequence[T]) -> list[T]:
    """Returns the items in an order in which any first few lie far apart."""
    order = np.argsort(np.arange(len(items)) * 0.6180339887498949 % 1.0, kind="stable")
    return [items[i] for i in order]


def _pairs(found: dict[Shard, np.ndarray]) -> int:
    return sum(map(len, found.values()))


def _smallest(draws: np.ndarray, wanted: int) -> int:
    """Returns the largest of the `wanted` smallest draws; 0 where there are none."""
    return int(np.sort(draws)[:wanted][-1]) if len(draws) else 0


def _write(out: Path, parts: list[BackgroundSample]) -> None:
    refused = sum((part.refused for part in parts), Counter())
    offered = [ids for part in parts for ids in part.offered]
    if not offered:
        why = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        raise InputError(f"No pair of the input can be used: {why or 'it is empty'}.")
    order = np.argsort(np.concatenate([part.draws for part in parts]), kind="stable")
    names = np.array(["\n".join(ids) for ids in offered])
    images, words = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("images", "words")
    )
    with replace_file(out / BACKGROUND_FILE) as partial:
        np.savez(partial, images=images[order], offered=names[order], words=words[order])


def read_background(out: Path) -> Background:
    """Returns the background of a job.

    Raises:
        MismatchError: an older version drew it.
    """
    with np.load(out / BACKGROUND_FILE) as stored:
        if "words" not in stored:
            raise MismatchError(
                f"{str(out)!r} was begun by an older version, which drew its background otherwise; "
                "choose another --out."
            )
        offered = tuple(frozenset(text.split("\n")) for text in stored["offered"].tolist())
        return Background(stored["images"].astype(np.float32), offered, stored["words"])
