"""Which vectors `adapt` holds out, and what it measures on them.

Two things can go wrong with a map, so two parts are held out, chosen by hashes: all vectors of some
entities (does it help with things never seen?), and half of the vectors of some others (does it
help with new images of known things?). Both are the retrieval mAP among all held-out vectors; where
only the known count, theirs is among the known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.arrays.runs import repeat_runs, run_starts
from openmofi.errors import InputError
from openmofi.evaluate.metrics import average_precisions

Favour = Literal["both", "known", "unseen"]
MOST_SCORED = 5000
"""Held-out vectors that are scored at most."""
FEW = 20
"""Entities held out at least, or a quarter where that is less: with fewer, chance decides."""
_MOST_FOLDS = 5
_FEWEST = 4
"""Vectors that an entity needs for half of them to be held out: two must remain on either side."""


@dataclass(frozen=True)
class Split:
    """Rows of the labelled vectors."""

    train: Int[np.ndarray, " n"]
    known: Int[np.ndarray, " k"]
    """Held out; other vectors of their entities are trained on."""
    unseen: Int[np.ndarray, " u"]
    """Held out with all of their entity."""


@dataclass(frozen=True)
class HeldOutScore:
    """Retrieval mAP; entities count alike, whatever their number of vectors."""

    known: float
    """Among new vectors of entities trained on; NaN: there are none."""
    unseen: float
    """Among entities never trained on; NaN: there are none."""
    per_entity: tuple[Float[np.ndarray, " k"], Float[np.ndarray, " u"]]
    """What they are the means of."""

    @staticmethod
    def of(known: Float[np.ndarray, " k"], unseen: Float[np.ndarray, " u"]) -> HeldOutScore:
        """Returns the score of entities' means."""
        means = [float(part.mean()) if len(part) else float("nan") for part in (known, unseen)]
        return HeldOutScore(means[0], means[1], (known, unseen))

    @property
    def mean(self) -> float:
        """Of the two, as far as there are both."""
        return float(np.nanmean([self.known, self.unseen]))

    def value(self, favour: Favour) -> float:
        """Returns what is to be as high as possible."""
        chosen = {"both": self.mean, "known": self.known, "unseen": self.unseen}[favour]
        return self.mean if math.isnan(chosen) else chosen


def hashed(text: str, key: int) -> float:
    """Returns a number in [0, 1) that follows from a text and 64 bits."""
    digest = blake2b(text.encode(), digest_size=8, salt=key.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64


def split(
    targets: Int[np.ndarray, " n"], ids: Sequence[str], *, share: float, seed: int, fold: int = 0
) -> Split:
    """Divides vectors by their target entities.

    Of the entities with two vectors or more, `share` is held out whole, but at least 20 or a
    quarter; of as many others with four or more, every other vector.

    Args:
        targets: entity of each vector.
        ids: of the entities; their hashes decide.
        share: of the entities.
        seed: of the hashes.
        fold: another one holds out the next entities whole.

    Raises:
        InputError: fewer than two entities remain to train on, or none can be held out.
    """
    counts = np.bincount(targets, minlength=len(ids))
    key = random_key(seed, Purpose.ADAPT_SPLIT)
    order = np.argsort([hashed(entity, key) for entity in ids], kind="stable")
    several = order[counts[order] >= 2]
    number = _num_unseen(len(several), share)
    several = np.roll(several, -fold * number)
    unseen = several[:number]
    rest = several[number:]
    halved = rest[counts[rest] >= _FEWEST][:number]
    if not len(several) or (counts > 0).sum() - number < 2:
        raise InputError(
            f"{(counts > 0).sum()} entities, of which {len(several)} have two vectors or more, are "
            "too few to train on some and to test on others; label more, two vectors each."
        )
    is_unseen, is_known = np.isin(targets, unseen), np.zeros(len(targets), bool)
    rows = np.flatnonzero(np.isin(targets, halved))
    rows = rows[np.argsort(targets[rows], kind="stable")]
    starts = run_starts(targets[rows])
    within = np.arange(len(rows)) - repeat_runs(starts, starts, len(rows))
    is_known[rows[within % 2 == 1]] = True
    return Split(*(np.flatnonzero(p) for p in (~(is_unseen | is_known), is_known, is_unseen)))


def num_folds(targets: Int[np.ndarray, " n"], *, share: float) -> int:
    """Returns how often to split: with few entities more than once, or chance would decide."""
    several = int((np.bincount(targets) >= 2).sum())
    number = _num_unseen(several, share)
    return max(1, min(_MOST_FOLDS, several // number, -(-FEW // number)))


def _num_unseen(several: int, share: float) -> int:
    # Where there are enough, two: one alone has no other unseen entity to be confused with.
    return max(round(share * several), min(FEW, several // 4), min(2, several // 2), 1)


def at_most(
    rows: Int[np.ndarray, " n"], targets: Int[np.ndarray, " all"], most: int
) -> Int[np.ndarray, " m"]:
    """Returns rows of entities drawn evenly, all of each, that are `most` at most."""
    entities, counts = np.unique(targets[rows], return_counts=True)
    drawn = np.random.default_rng(0).permutation(len(entities))
    kept = entities[drawn[np.cumsum(counts[drawn]) <= most]]
    return rows[np.isin(targets[rows], kept)] if len(kept) else rows[:most]


def score(
    vectors: Float[np.ndarray, "n dim"],
    targets: Int[np.ndarray, " n"],
    *,
    num_known: int,
    known_alone: bool = False,
) -> HeldOutScore:
    """Measures held-out vectors against each other.

    Args:
        vectors: unit vectors, those of known entities first.
        targets: their entities.
        num_known: how many of them are of known entities.
        known_alone: whether these are searched among themselves, not among all.
    """
    precisions = average_precisions(vectors, targets, include_self=False)
    if known_alone and num_known:
        known = slice(num_known)
        precisions[known] = average_precisions(vectors[known], targets[known], include_self=False)
    parts = [
        _by_entity(precisions[part], targets[part])
        for part in (slice(None, num_known), slice(num_known, None))
    ]
    return HeldOutScore.of(*parts)


def joined(scores: Sequence[HeldOutScore]) -> HeldOutScore:
    """Returns the score over the entities of several splits."""
    known, unseen = (np.concatenate(p) for p in zip(*(s.per_entity for s in scores), strict=True))
    return HeldOutScore.of(known, unseen)


def _by_entity(precisions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns each entity's mean, in the order of the entities."""
    asked = ~np.isnan(precisions)
    entities, places = np.unique(targets[asked], return_inverse=True)
    sums = np.bincount(places, precisions[asked], minlength=len(entities))
    return sums / np.bincount(places, minlength=len(entities))


def harms(new: HeldOutScore, old: HeldOutScore) -> bool:
    """Says whether one of the two parts got worse, whatever the other gained."""
    return new.known < old.known or new.unseen < old.unseen  # false for NaN: there is no such part


def is_better(new: HeldOutScore, old: HeldOutScore, favour: Favour = "both") -> bool:
    """Says whether a gain in the score is more than chance.

    It must exceed two standard errors of the paired differences over entities: the best of several
    maps would else beat the identity on any labels, by luck.
    """
    gains = [n - o for n, o in zip(new.per_entity, old.per_entity, strict=True)]
    if favour != "both":
        gains = [gains[0] if favour == "known" else gains[1]]
    gains = [gain for gain in gains if len(gain)]
    # The mean of two means: variances add, divided by the number of parts squared.
    variance = sum(map(_variance, gains)) / len(gains) ** 2
    return new.value(favour) - old.value(favour) > 2 * variance**0.5


def _variance(gains: Float[np.ndarray, " n"]) -> float:
    """Returns the variance of the mean of gains."""
    return float(gains.var(ddof=1)) / len(gains) if len(gains) > 1 else 0.0


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Returns scores with as many digits as a log needs."""
    return {name: round(value, 5) for name, value in values.items()}
