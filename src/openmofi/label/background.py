"""The background: a sample of the input's images that tells how well an entity matches by chance.

It is drawn once per job and stored next to the labels. The draw depends on the pairs' content and
not on their position: the same pairs in another order or in other shards give the same background.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
_CANDIDATE = ("start", "id", "score")
"""What is stored of a candidate."""
_PAIRS_PER_IMAGE = 20
"""Pairs from which each image is drawn; a smaller input is read to its end."""


@dataclass(frozen=True)
class Background:
    """A sample of images and the entities that their captions name."""

    images: Float[np.ndarray, "n dim"]
    offered: tuple[frozenset[str], ...]
    """Per image: the candidate entities of its caption, for which it is not background."""
    words: UInt64[np.ndarray, " n"]
    """Per image: 64 bits of the sha256 of its bytes."""

    def moments(self, texts: Float[np.ndarray, "e dim"], ids: Sequence[str]) -> np.ndarray:
        """Returns [e, 2]: mean and standard deviation of each entity's background cosine."""
        cosines = texts @ self.images.T
        mine = ~self.offering(ids)
        # If hardly any background is left (few entities, few images), use all of it.
        mine[mine.sum(1) < _FEW] = True
        count = mine.sum(1)
        mean = (cosines * mine).sum(1) / count
        variance = (np.square(cosines - mean[:, None]) * mine).sum(1) / count
        return np.stack([mean, np.sqrt(variance) + 1e-6], axis=1)

    def offering(self, ids: Sequence[str]) -> Bool[np.ndarray, "e n"]:
        """Returns which images have an entity among the candidates of their caption."""
        column = {entity: i for i, entity in enumerate(ids)}
        found = np.zeros((len(ids), len(self.offered)), dtype=bool)
        for image, offered in enumerate(self.offered):
            rows = [column[entity] for entity in offered if entity in column]
            found[rows, image] = True
        return found


@dataclass(frozen=True)
class BackgroundSample:
    """The part of the background that comes from one shard."""

    images: np.ndarray
    offered: list[list[str]]
    words: np.ndarray
    draws: np.ndarray
    """Random numbers of the pairs, see `draw`."""
    refused: Counter[str]
    """Pairs that could not be used, by reason."""
    candidates: pa.Table | None = None
    """The linker's, with the `place` of each one's image; None without images."""
    by_large: np.ndarray | None = None
    """The images as a second encoder sees them; None without images, or without that."""


def draw(pairs: pa.Table) -> UInt64[np.ndarray, " n"]:
    """Returns 64 random bits for each pair, which depend on the pair alone.

    A pair is identified by its key or, if its key is only a row number, by its caption and URL.

    Args:
        pairs: schema.PAIRS.
    """
    columns = [pairs[name].to_pylist() for name in ("key", "path", "caption", "url")]
    digests = []
    for key, path, caption, url in zip(*columns, strict=True):
        row = path.removeprefix("row:")
        is_counted = row != path and key.endswith(f"-{row:>09}")  # as pairs/rows.py numbers them
        name = f"{caption}\n{url}" if is_counted else key
        digests.append(hashlib.sha256(name.encode()).digest()[:8])
    words = np.frombuffer(b"".join(digests), "<u8")
    return mix_words(random_key(0, Purpose.BACKGROUND), words)


def write_background(
    out: Path,
    shards: Sequence[Shard],
    wanted: int,
    *,
    draws: Callable[[Shard], np.ndarray],
    sample: Callable[[Shard, int], BackgroundSample],
) -> None:
    """Draws about `wanted` images from many more pairs and stores them.

    Args:
        out: the job's directory.
        shards: the input's shards.
        wanted: number of images.
        draws: returns `draw` of a shard's usable pairs; empty if the shard cannot be read.
        sample: returns the images of a shard whose draws are at most its second argument.

    Raises:
        InputError: no pair of the input can be used.
    """
    found: dict[Shard, np.ndarray] = {}
    order = spread_out(shards)
    for shard in order:
        num_pairs = sum(map(len, found.values()))
        if len(found) >= _SHARDS_AT_LEAST and num_pairs >= wanted * _PAIRS_PER_IMAGE:
            break
        found[shard] = draws(shard)
    limit = _smallest(np.concatenate(list(found.values())), wanted)
    drawn = [shard for shard, mine in found.items() if (mine <= limit).any() or not len(mine)]
    parts = [sample(shard, limit) for shard in track(drawn, "background", unit="shards")]
    for shard in order:
        if any(part.offered for part in parts):
            break
        if shard not in drawn:  # no image of the drawn shards is readable
            parts.append(sample(shard, _smallest(draws(shard), wanted)))

    offered = [ids for part in parts for ids in part.offered]
    if not offered:
        refused = sum((part.refused for part in parts), Counter())
        why = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        raise InputError(f"No pair of the input can be used: {why or 'it is empty'}.")
    ranks = np.argsort(np.concatenate([part.draws for part in parts]), kind="stable")
    names = np.array(["\n".join(ids) for ids in offered])
    images = np.concatenate([part.images for part in parts])
    words = np.concatenate([part.words for part in parts])
    columns: dict[str, Any] = {
        "images": images[ranks],
        "offered": names[ranks],
        "words": words[ranks],
    }
    if any(part.by_large is not None for part in parts):
        columns |= _seen_twice(parts, ranks)
    with replace_file(out / BACKGROUND_FILE) as partial:
        np.savez(partial, **columns)


def _seen_twice(parts: Sequence[BackgroundSample], ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what a second look is learnt from: other vectors of the images, and candidates."""
    begins = np.cumsum([0, *(len(part.images) for part in parts[:-1])])
    vectors, tables, places = [], [], []
    for part, begin in zip(parts, begins, strict=True):
        if part.by_large is not None and part.candidates is not None:
            vectors.append(part.by_large)
            tables.append(part.candidates.select(list(_CANDIDATE)))
            places.append(part.candidates["place"].to_numpy() + begin)
    by_large, candidates, place = (
        np.concatenate(vectors),
        pa.concat_tables(tables),
        np.concatenate(places),
    )
    new = np.empty_like(ranks)
    new[ranks] = np.arange(len(ranks))
    order = np.argsort(new[place], kind="stable")
    found = {name: candidates[name].to_numpy()[order] for name in _CANDIDATE}
    found["id"] = found["id"].astype(str)
    return {"by_large": by_large[ranks], "place": new[place][order], **found}


def spread_out(items: Sequence[T]) -> list[T]:
    """Reorders the items so that the first few, however many, are spread over all of them."""
    order = np.argsort(np.arange(len(items)) * 0.6180339887498949 % 1.0, kind="stable")
    return [items[i] for i in order]


def _smallest(draws: np.ndarray, wanted: int) -> int:
    """Returns the largest of the `wanted` smallest draws; 0 if there are no draws."""
    return int(np.sort(draws)[:wanted][-1]) if len(draws) else 0


def read_background(out: Path, *, by_large: bool = False) -> Background:
    """Returns the background of a job.

    Args:
        out: the job's directory.
        by_large: as the second encoder sees the images.

    Raises:
        MismatchError: it was drawn by an older version.
    """
    with np.load(out / BACKGROUND_FILE) as stored:
        if "words" not in stored:
            raise MismatchError(
                f"{str(out)!r} was begun by an older version, which drew another background; "
                "choose another --out."
            )
        offered = tuple(frozenset(text.split("\n")) for text in stored["offered"].tolist())
        images = stored["by_large" if by_large else "images"].astype(np.float32)
        return Background(images, offered, stored["words"])


def read_candidates_of_background(out: Path) -> pa.Table:
    """Returns the candidates of the images that two encoders saw, with the `place` of each's."""
    with np.load(out / BACKGROUND_FILE) as stored:
        return pa.table({name: stored[name] for name in ("place", *_CANDIDATE)})
