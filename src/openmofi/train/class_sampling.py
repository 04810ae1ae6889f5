"""Which classes a step compares its images with: (seed, step) -> drawn classes and their logQ.

Every rank draws the same classes for the whole group, since the draw is keyed by seed and step
alone; `present_classes` then keeps those of one shard. Nothing here waits for the device.

Why the correction is right. Let the batch's own classes P always be present, and a class c outside
P be drawn with chance q_c. With z_c - log q_c as the logit of the drawn and z_c of the batch's own,
    sum_{P} e^{z_c} + sum_{drawn, not in P} e^{z_c} / q_c
has the full softmax's denominator as its mean, whatever the batch; the true class itself is in P,
hence never corrected. Weighting by 1 / q is importance sampling (Bengio and Senecal 2008, "Adaptive
importance sampling to accelerate training of a neural probabilistic language model"; Jean et al.
2015, arXiv 1412.2007). What bias remains is that of the logarithm of a mean, of second order.
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
"""Up to so many places a permutation is drawn as a table; rounds mix a handful unevenly."""
_FORBIDDEN = 1e9  # as logQ: no chance in any softmax, and finite


def _signed(number: int) -> int:
    """Returns 64 bits as torch's int64 reads them."""
    return number - (1 << 64) if number >> 63 else number


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifts right and fills with zeros, where int64 would repeat the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def keyed_permutation(places: Tensor, total: int, key: int) -> Tensor:
    """Returns where a permutation of range(total), one per key, sends the places.

    Swap-or-not (Hoang, Morris and Rogaway 2012, "An enciphering scheme based on a card shuffle"):
    each round pairs x with k - x and swaps the pair, or not, by a hash of its larger member. It
    needs neither memory nor retries, for any total. The rotation at the start makes every class
    exactly as likely as any other, however few the rounds. Up to 1,024 places, all permutations are
    as likely: it is the order of random numbers.
    """
    if total <= _FEW:
        return keyed_uniform(total, key, places.device).argsort()[places]
    places = (places + mix_integers(key, -1) % total) % total
    for turn in range(_ROUNDS):
        partners = (mix_integers(key, turn) % total - places) % total
        mixed = torch.maximum(places, partners) * _signed(mix_integers(key, turn, 1) | 1)
        mixed = (mixed ^ _shifted(mixed, 32)) * _signed(MIX1)
        places = torch.where(mixed < 0, partners, places)  # the sign is the best mixed bit
    return places


def keyed_uniform(count: int, key: int, device: torch.device) -> Tensor:
    """Returns `count` float64 numbers, even over [0, 1), that depend on nothing but the key."""
    state = torch.arange(count, device=device) * _signed(GOLDEN) + _signed(key)
    state = (state ^ _shifted(state, 30)) * _signed(MIX1)
    state = (state ^ _shifted(state, 27)) * _signed(MIX2)
    return _shifted(state ^ _shifted(state, 31), 11).double() * 2.0**-53


class ClassSampler:
    """Draws `num_sampled` of the classes by the settings' sampler.

    uniform draws without replacement, so q = S / N. log-uniform and popularity draw S times with
    replacement and drop repetitions, so q = 1 - (1 - p)^S exactly; p(k) = log(1 + 1 / (k + 1)) /
    log(N + 1) for the class of rank k (as TensorFlow's log_uniform_candidate_sampler), or the
    class's share of the images, of which every class counts as having at least one.

    Raises:
        SettingsError: sampler popularity without image counts.
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
        """Returns the class ids of a step [num_sampled]; only uniform's are all distinct."""
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
        """Returns log q (float32): the chance that a step draws each class at least once."""
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
        """Returns more distinct classes than a step ever draws from range(first, last).

        The mean and eight deviations more; the classes exclude each other, so Chernoff's bound
        holds and leaves a chance below 1e-13 per step that the last of them go unseen.
        """
        mean = 0.0
        for start in range(first, last, 1 << 20):
            block = torch.arange(start, min(start + (1 << 20), last), device=self.device)
            mean += float(self.log_inclusion(block).double().exp().sum())
        return min(last - first, math.ceil(mean + 8 * math.sqrt(mean) + 64))


class PresentClasses(NamedTuple):
    """The classes of one shard in one step, in ascending order."""

    rows_S: Tensor
    """Row numbers within the shard; padding is the number of rows, the row behind the last."""
    log_q_S: Tensor | None
    """What to subtract from the logits; None where nothing is corrected."""
    padding_S: Tensor | None
    """Where there is padding; None on a device that need not pad."""


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
    """Returns the drawn classes and the batch's own that lie in the shard.

    Args:
        sampler: draws for all shards alike.
        positives_P: classes of all ranks' images, with repetitions; negative numbers do not count.
        step: keys the draw.
        shard: (first, last) of the class ids that this rank holds.
        most_drawn: room for drawn classes, as `ClassSampler.most_present` gives it.
        log_q: correct for the chance of being drawn.
        trim: cut the padding off, for which a GPU would have to wait.
    """
    first, last = shard
    absent, room = last - first, min(most_drawn + len(positives_P), last - first)
    own_P = _rows_in_shard(positives_P, shard)
    wanted = torch.cat([_rows_in_shard(sampler.draw(step), shard), own_P]).sort().values
    is_new = torch.cat([wanted[:1] < absent, (wanted[1:] != wanted[:-1]) & (wanted[1:] < absent)])
    place = torch.where(is_new, is_new.cumsum(0) - 1, room).clamp(max=room)
    rows_S = torch.full((room + 1,), absent, device=wanted.device)
    # What is not new lands in the last place, which is cut off.
    rows_S.scatter_(0, place, torch.where(place < room, wanted, absent))
    size = int(is_new.sum()) if trim else room
    rows_S = rows_S[:size]
    padding_S = None if trim else rows_S == absent
    log_q_S = None
    if log_q:
        log_q_S = sampler.log_inclusion((rows_S + first).clamp(max=sampler.num_classes - 1))
        log_q_S = log_q_S.masked_fill(_is_one_of(rows_S, own_P, absent), 0.0)
    if padding_S is not None:
        given_S = torch.zeros(size, device=wanted.device) if log_q_S is None else log_q_S
        log_q_S = given_S.masked_fill(padding_S, _FORBIDDEN)
    return PresentClasses(rows_S, log_q_S, padding_S)


def _rows_in_shard(classes: Tensor, shard: tuple[int, int]) -> Tensor:
    """Returns row numbers within the shard; all other classes become the row behind the last."""
    first, last = shard
    inside = (classes >= first) & (classes < last)
    return torch.where(inside, classes - first, last - first)


def _is_one_of(rows_S: Tensor, own_P: Tensor, absent: int) -> Tensor:
    """Returns which of the (ascending) rows are the batch's own."""
    marks = torch.zeros(len(rows_S) + 1, dtype=torch.bool, device=rows_S.device)
    place_P = torch.searchsorted(rows_S, own_P)
    marks.scatter_(0, torch.where(own_P < absent, place_P, len(rows_S)), True)
    return marks[:-1]
