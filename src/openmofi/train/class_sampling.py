"""The classes with which a step compares its images: (seed, step) -> drawn classes and their logQ.

Every rank draws the same classes for the whole group, because the draw depends only on seed and
step; `present_classes` then keeps those of one shard. Nothing here waits for the device.

Why the correction is right: let the batch's own classes P always be present, and let a class c
outside P be drawn with chance q_c. With logits z_c - log q_c for drawn classes and z_c for the
batch's own,
    sum_{P} e^{z_c} + sum_{drawn, not in P} e^{z_c} / q_c
has the full softmax's denominator as its expectation, whatever the batch; the true class is in P
and so is never corrected. Weighting by 1 / q is importance sampling (Bengio and Senecal 2008,
"Adaptive importance sampling to accelerate training of a neural probabilistic language model"; Jean
et al. 2015, arXiv 1412.2007). The remaining bias, of the logarithm of a mean, is of second order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from openmofi.arrays.random_keys import Purpose, mix_integers, random_key
from openmofi.arrays.splitmix64 import GOLDEN, MIX1, MIX2
from openmofi.config import HeadSettings
from openmofi.errors import SettingsError

_ROUNDS = 20
_FEW = 1024
"""Up to so many places, a permutation is drawn as a table; rounds mix a few places unevenly."""
_FORBIDDEN = 1e9  # as logQ: leaves no share of any softmax, and is finite


def _signed(number: int) -> int:
    """Returns 64 bits as a signed integer, for torch's int64."""
    return number - (1 << 64) if number >> 63 else number


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifts right and fills with zeros; int64's own shift would repeat the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def keyed_permutation(places: Tensor, total: int, key: int) -> Tensor:
    """Returns where the keyed permutation of range(total) sends the places.

    Swap-or-not (Hoang, Morris and Rogaway 2012, "An enciphering scheme based on a card shuffle"):
    each round pairs x with k - x and swaps the pair or not, by a hash of its larger member. It
    needs neither memory nor retries, for any total. The initial rotation makes every class exactly
    as likely as any other, even with few rounds. Up to 1,024 places, all permutations are equally
    likely: there the permutation is the order of random numbers.
    """
    if total <= _FEW:
        return keyed_uniform(total, key, places.device).argsort()[places]
    places = (places + mix_integers(key, -1) % total) % total
    for turn in range(_ROUNDS):
        partners = (mix_integers(key, turn) % total - places) % total
        mixed = torch.maximum(places, partners) * _signed(mix_integers(key, turn, 1) | 1)
        mixed = (mixed ^ _shifted(mixed, 32)) * _signed(MIX1)
        places = torch.where(mixed < 0, partners, places)  # the sign is the best-mixed bit
    return places


def keyed_uniform(count: int, key: int, device: torch.device) -> Tensor:
    """Returns `count` float64 numbers, uniform in [0, 1), that depend only on the key."""
    state = torch.arange(count, device=device) * _signed(GOLDEN) + _signed(key)
    state = (state ^ _shifted(state, 30)) * _signed(MIX1)
    state = (state ^ _shifted(state, 27)) * _signed(MIX2)
    return _shifted(state ^ _shifted(state, 31), 11).double() * 2.0**-53


class ClassSampler:
    """Draws `num_sampled` of the classes with the settings' sampler.

    uniform draws without replacement, so q = S / N. log-uniform and popularity draw S times with
    replacement and drop repeats, so q = 1 - (1 - p)^S exactly. For log-uniform, p(k) =
    log(1 + 1 / (k + 1)) / log(N + 1) for the class of rank k, as in TensorFlow's
    log_uniform_candidate_sampler; for popularity, p is the class's share of the images, with at
    least one image per class.

    Raises:
        SettingsError: the sampler is popularity, but there are no image counts.
    """

    def __init__(
        self,
        num_classes: int,
        settings: HeadSettings,
        *,
        seed: int,
        device: torch.device,
        class_counts: Tensor | None = None,
    ):
        self.num_classes, self.num_sampled = num_classes, settings.num_sampled
        self.kind, self.seed, self.device = settings.sampler, seed, device
        self._cumulative_N: Tensor | None = None
        if self.kind == "popularity":
            if class_counts is None or len(class_counts) != num_classes:
                raise SettingsError(
                    "The sampler 'popularity' needs the number of images of every class and got "
                    "none; set head.sampler to uniform or log-uniform."
                )
            counts_N = class_counts.to(device, torch.float64).clamp(min=1)
            self._cumulative_N = counts_N.cumsum(0) / counts_N.sum()

    def draw(self, step: int) -> Tensor:
        """Returns the class ids of a step [num_sampled]; only those of uniform are all distinct."""
        key = random_key(self.seed, Purpose.CLASSES, step)
        if self.kind == "uniform":
            places_S = torch.arange(self.num_sampled, device=self.device)
            return keyed_permutation(places_S, self.num_classes, key)
        even_S = keyed_uniform(self.num_sampled, key, self.device)
        if self._cumulative_N is not None:
            drawn_S = torch.searchsorted(self._cumulative_N, even_S, right=True)
        else:
            drawn_S = (even_S * math.log(self.num_classes + 1)).exp().long() - 1
        return drawn_S.clamp(0, self.num_classes - 1)

    def log_inclusion(self, classes: Tensor) -> Tensor:
        """Returns log q (float32), with q the chance that a step draws a class at least once."""
        if self.kind == "uniform":
            q = self.num_sampled / self.num_classes
            return torch.full(classes.shape, math.log(q), device=classes.device)
        if self._cumulative_N is not None:
            before = self._cumulative_N[(classes - 1).clamp(min=0)] * (classes > 0)
            chance = self._cumulative_N[classes] - before
        else:
            chance = (1 / (classes.double() + 1)).log1p() / math.log(self.num_classes + 1)
        return (-torch.expm1(self.num_sampled * torch.log1p(-chance))).log().float()

    def most_present(self, first: int, last: int) -> int:
        """Returns an upper bound of the distinct classes that a step draws from range(first, last).

        It is the mean plus eight deviations. The classes exclude each other, so Chernoff's bound
        holds: with a chance below 1e-13 per step there are more, and the last of them are left out.
        """
        mean = 0.0
        for start in range(first, last, 1 << 20):
            block = torch.arange(start, min(start + (1 << 20), last), device=self.device)
            mean += float(self.log_inclusion(block).double().exp().sum())
        return min(last - first, math.ceil(mean + 8 * math.sqrt(mean) + 64))


class PresentClasses(NamedTuple):
    """The classes of one shard in one step, in ascending order."""

    rows_S: Tensor
    """Row numbers within the shard; padding is the number of rows, that is one past the last."""
    log_q_S: Tensor | None
    """What to subtract from the logits; None without a correction."""
    padding_S: Tensor | None
    """Which items are padding; None on a device that needs none."""


def present_classes(
    sampler: ClassSampler,
    positives_P: Tensor,
    *,
    step: int,
    shard: tuple[int, int],
    most_drawn: int,
    log_q: bool,
    trim: bool,
) -> PresentClasses:
    """Returns the drawn classes and the batch's own that are in the shard.

    Args:
        sampler: draws the same classes for all shards.
        positives_P: classes of all ranks' images, with repeats; negative numbers do not count.
        step: keys the draw.
        shard: the class ids [first, last) that this rank holds.
        most_drawn: room for drawn classes, from `ClassSampler.most_present`.
        log_q: whether to correct for the chance of being drawn.
        trim: whether to cut the padding off, for which a GPU would have to wait.
    """
    first, last = shard
    absent, room = last - first, min(most_drawn + len(positives_P), last - first)
    own_P = _rows_in_shard(positives_P, shard)
    wanted = torch.cat([_rows_in_shard(sampler.draw(step), shard), own_P]).sort().values
    is_new = torch.cat([wanted[:1] < absent, (wanted[1:] != wanted[:-1]) & (wanted[1:] < absent)])
    place = torch.where(is_new, is_new.cumsum(0) - 1, room).clamp(max=room)
    rows_S = torch.full((room + 1,), absent, device=wanted.device)
    # Repeats go to the last place, which is cut off.
    rows_S.scatter_(0, place, torch.where(place < room, wanted, absent))
    size = int(is_new.sum()) if trim else room
    rows_S = rows_S[:size]
    padding_S = None if trim else rows_S == absent
    log_q_S = None
    if log_q:
        log_q_S = sampler.log_inclusion((rows_S + first).clamp(max=sampler.num_classes - 1))
        # The batch's own classes are always present, so they are not corrected.
        own_S = torch.zeros(len(rows_S) + 1, dtype=torch.bool, device=rows_S.device)
        place_P = torch.searchsorted(rows_S, own_P)
        own_S.scatter_(0, torch.where(own_P < absent, place_P, len(rows_S)), True)
        log_q_S = log_q_S.masked_fill(own_S[:-1], 0.0)
    if padding_S is not None:
        given_S = torch.zeros(size, device=wanted.device) if log_q_S is None else log_q_S
        log_q_S = given_S.masked_fill(padding_S, _FORBIDDEN)
    return PresentClasses(rows_S, log_q_S, padding_S)


def _rows_in_shard(classes: Tensor, shard: tuple[int, int]) -> Tensor:
    """Returns row numbers within the shard, for classes outside of it one past the last row."""
    first, last = shard
    inside = (classes >= first) & (classes < last)
    return torch.where(inside, classes - first, last - first)
