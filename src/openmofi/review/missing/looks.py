"""Vectors of the images of one name -> the images that share a look, and how pure they are.

A look is a mean vector and a least cosine with it. Whether a look is more than chance is told by
the background, images drawn from all that were refused: of n images that bear a name, m are in the
look, of the background a share p. If the name said nothing about the images, so many would be in
it with a probability of at most exp(-n KL(m/n || p)) (Chernoff). And of those m, at most p n are
there by chance, which gives the purity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_ROUNDS = 6
_PURE = 0.9
"""Least purity that a look is estimated to have; it is a lower bound."""
_SCALES = (1.0, 0.5, 0.25, 0.125)
"""Shares of the images that a look is first sought with."""
_ONE_HEAP = 2.65
"""Standard deviations between the halves of a normal heap: 2 sqrt(2 / pi) / sqrt(1 - 2 / pi)."""
_BY_CHANCE = 10.0
"""What n of its values may add to that, times the square root of n."""
_OWN = 16
"""Images of a mean that others are compared with."""
_DRAWS = 8


@dataclass(frozen=True)
class Look:
    """Images that look alike."""

    mean: Float[np.ndarray, " dim"]
    """Unit vector."""
    least: float
    """Cosine with the mean of the least typical image."""
    members: np.ndarray
    """Their numbers among the images that were given, the most typical one first."""
    evidence: float
    """Nats by which the look is no chance."""
    purity: float
    """Estimated share of the members that are not there by chance."""
    cohesion: float
    """Mean cosine of two members."""


def find_look(
    images: Float[np.ndarray, "n dim"],
    background: Float[np.ndarray, "b dim"],
    *,
    least: int,
) -> Look | None:
    """Returns the look that is least likely to be chance, or None if too few images share any.

    Args:
        images: unit vectors, whose background has the mean 0.
        background: the same of other images.
        least: fewest images of a look.
    """
    if len(images) < least:
        return None
    cosines = images @ images.T
    best: Look | None = None
    for size in sorted({max(least, round(len(images) * scale)) for scale in _SCALES}):
        nearest = -np.partition(-cosines, size - 1, axis=1)[:, :size]
        seed = int(np.argmax(nearest.mean(axis=1)))
        members = np.argsort(-cosines[seed], kind="stable")[:size]
        look = _settled(images, background, members, least)
        if look is not None and (best is None or look.evidence > best.evidence):
            best = look
    return best


def second_half(images: Float[np.ndarray, "n dim"], *, least: int) -> Bool[np.ndarray, " n"] | None:
    """Returns which images belong to the smaller of two looks, or None if there is only one.

    Half of the images are divided by 2-means; the others say whether they fall into two heaps along
    the line between the two means: whether these are more standard deviations apart than the halves
    of one heap.
    """
    if len(images) < 4 * least:
        return None
    order = np.random.default_rng(0).permutation(len(images))
    middle, axis = _divided(images[order[::2]])
    places = (images - middle) @ axis
    told = places[order[1::2]]
    sides = [told[told > 0], told[told <= 0]]
    if min(map(len, sides)) < 2:
        return None
    within = np.sqrt(sum(((side - side.mean()) ** 2).sum() for side in sides) / len(told))
    apart = float(sides[0].mean() - sides[1].mean()) / max(float(within), 1e-9)
    upper = places > 0
    smaller = upper if upper.mean() <= 0.5 else ~upper
    return (
        smaller
        if apart > _ONE_HEAP + _BY_CHANCE / np.sqrt(len(told)) and smaller.sum() >= least
        else None
    )


def _divided(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a point between two clusters, the unit vector from one mean to the other)."""
    centred = images - images.mean(axis=0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    side = centred @ axis > 0
    for _ in range(_ROUNDS):
        if side.all() or not side.any():
            break
        one, two = images[side].mean(axis=0), images[~side].mean(axis=0)
        axis, middle = _unit(one - two), (one + two) / 2
        before, side = side, (images - middle) @ axis > 0
        if (before == side).all():
            return middle, axis
    return images.mean(axis=0), axis


def distinct_share(one: Float[np.ndarray, "n dim"], other: Float[np.ndarray, "m dim"]) -> float:
    """Returns how many of some images are nearer to their own mean than to another group's.

    Both means are of as many images, so it is about a half if the groups show the same.
    """
    size = min(_OWN, len(one) - 1, len(other))
    if size < 1:
        return 1.0
    rng = np.random.default_rng(0)
    nearer = 0.0
    for _ in range(_DRAWS):
        order = rng.permutation(len(one))
        theirs = _unit(other[rng.permutation(len(other))[:size]].sum(axis=0))
        for at in range(0, len(one), size):
            asked = order[at : at + size]
            rest = np.setdiff1d(order, asked)[:size] if len(one) >= 2 * size else None
            if rest is None:
                total = one.sum(axis=0)
                own = total - one[asked]
                own /= np.linalg.norm(own, axis=1, keepdims=True)
                mine = np.einsum("nd,nd->n", one[asked], own)
            else:
                mine = one[asked] @ _unit(one[rng.permutation(rest)].sum(axis=0))
            nearer += float((mine > one[asked] @ theirs).sum())
    return nearer / (_DRAWS * len(one))


def _settled(
    images: np.ndarray, background: np.ndarray, members: np.ndarray, least: int
) -> Look | None:
    """Moves a look to where its members are, until they stay."""
    look = None
    for _ in range(_ROUNDS):
        before = look
        look = _around(images, background, members, least)
        if look is None:
            return before
        if before is not None and len(np.setxor1d(before.members, look.members)) == 0:
            break
        members = look.members
    return look


def _around(
    images: np.ndarray, background: np.ndarray, members: np.ndarray, least: int
) -> Look | None:
    """Returns the look about the mean of some images, cut where it is least likely to be chance."""
    total = images[members].sum(axis=0)
    length = float(np.linalg.norm(total))
    if length < 1e-6:
        return None
    mean = total / length
    typical = images @ mean
    if len(members) > 1:  # an image does not vouch for itself
        own = total - images[members]
        norm = np.maximum(np.linalg.norm(own, axis=1), 1e-6)
        typical[members] = np.einsum("nd,nd->n", images[members], own) / norm
    order = np.argsort(-typical, kind="stable")
    others = np.sort(background @ mean)
    above = len(others) - np.searchsorted(others, typical[order], "left")
    n, m = len(images), np.arange(1, len(images) + 1)
    p = (1 + above) / (1 + len(others))
    purity = 1 - p * n / m
    evidence = np.where(m / n > p, n * _divergence(m / n, p), 0.0)
    allowed = (m >= least) & (purity >= _PURE) & (evidence > 0)
    if not allowed.any():
        return None
    cut = int(np.argmax(np.where(allowed, evidence, -1.0)))
    chosen = order[: cut + 1]
    k = len(chosen)
    spread = float(np.linalg.norm(images[chosen].sum(axis=0)) ** 2)
    cohesion = (spread - k) / (k * (k - 1)) if k > 1 else 1.0
    return Look(
        mean, float(typical[order[cut]]), chosen, float(evidence[cut]), float(purity[cut]), cohesion
    )


def _divergence(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Returns KL(q || p) of two coins, in nats."""
    q, p = np.clip(q, 1e-12, 1 - 1e-12), np.clip(p, 1e-12, 1 - 1e-12)
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-6)
