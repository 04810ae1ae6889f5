"""The background: a sample of the input's pictures, to tell how an entity looks by chance.

It is drawn once per job, from shards spread over the input, and stored beside the labels.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from openmofi.errors import InputError
from openmofi.progress import progress
from openmofi.shards import Shard

BACKGROUND_FILE = "background.npz"
_FEW = 8
_SHARDS_AT_LEAST = 4
_PICTURES_PER_SHARD = 64


@dataclass(frozen=True)
class Background:
    """Pictures of other captions."""

    images: Float[np.ndarray, "n dim"]
    offered: tuple[frozenset[str], ...]
    """Per picture: the entities that its caption offers, which are not background to it."""

    def moments(self, texts: Float[np.ndarray, "e dim"], ids: Sequence[str]) -> np.ndarray:
        """Returns [e, 2]: mean and standard deviation of each entity's background cosine."""
        cosines = texts @ self.images.T
        mine = self._not_offering(ids)
        # With hardly any background left (few entities, few pictures), all of it is better.
        mine[mine.sum(1) < _FEW] = True
        count = mine.sum(1)
        mean = (cosines * mine).sum(1) / count
        variance = (np.square(cosines - mean[:, None]) * mine).sum(1) / count
        return np.stack([mean, np.sqrt(variance) + 1e-6], axis=1)

    def _not_offering(self, ids: Sequence[str]) -> Bool[np.ndarray, "e n"]:
        column = {entity: i for i, entity in enumerate(ids)}
        mine = np.ones((len(ids), len(self.offered)), dtype=bool)
        for picture, offered in enumerate(self.offered):
            rows = [column[entity] for entity in offered if entity in column]
            mine[rows, picture] = False
        return mine


@dataclass(frozen=True)
class Sample:
    """What one shard gives to the background."""

    images: np.ndarray
    offered: list[list[str]]
    refused: Counter[str]
    """Pairs that could not be used, by reason."""


def write_background(
    out: Path, shards: Sequence[Shard], wanted: int, sample: Callable[[Shard, int], Sample]
) -> None:
    """Stores about `wanted` pictures of shards spread over the input.

    Args:
        out: the job's directory.
        shards: of the input.
        wanted: number of pictures.
        sample: takes pictures of one shard; its second argument says how many at most.

    Raises:
        InputError: no pair of the input can be used.
    """
    count = min(len(shards), max(_SHARDS_AT_LEAST, wanted // _PICTURES_PER_SHARD))
    picks = np.unique(np.linspace(0, len(shards) - 1, count).astype(int)).tolist()
    rest = sorted(set(range(len(shards))) - set(picks))  # for when all of those are damaged
    images, offered, refused = [], [], Counter()
    with progress("background", total=len(picks), unit="shards") as bar:
        for number, pick in enumerate([*picks, *rest]):
            if number >= len(picks) and offered:
                break
            part = sample(shards[pick], -(-wanted // len(picks)))
            images.append(part.images)
            offered += part.offered
            refused += part.refused
            bar.advance()
    if not offered:
        why = ", ".join(f"{reason} {count:,}" for reason, count in refused.most_common())
        raise InputError(f"No pair of the input can be used: {why or 'it is empty'}.")
    temporary = out / f".{uuid.uuid4().hex[:8]}.npz"  # other ranks may be at it, too
    names = np.array(["\n".join(ids) for ids in offered])
    np.savez(temporary, images=np.concatenate(images), offered=names)
    temporary.replace(out / BACKGROUND_FILE)


def read_background(out: Path) -> Background:
    """Returns the background of a job."""
    with np.load(out / BACKGROUND_FILE) as stored:
        offered = tuple(frozenset(text.split("\n")) for text in stored["offered"].tolist())
        return Background(stored["images"].astype(np.float32), offered)
