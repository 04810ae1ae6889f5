"""Draws of classes against what they promise: chances, repeatability, fixed shapes."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openmofi.arrays.random_keys import mix_integers
from openmofi.config import HeadSettings
from openmofi.errors import SettingsError
from openmofi.train import class_sampling
from openmofi.train.class_sampling import (
    ClassSampler,
    keyed_permutation,
    keyed_uniform,
    present_classes,
)

_CPU = torch.device("cpu")
_SAMPLERS = ["uniform", "log-uniform", "popularity"]


def _sampler(kind, num_classes=200, num_sampled=30, seed=0):
    counts = torch.arange(num_classes, 0, -1) ** 2
    settings = HeadSettings(sampler=kind, num_sampled=num_sampled)
    return ClassSampler(num_classes, settings, seed=seed, device=_CPU, class_counts=counts)


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_every_key_permutes_any_number_of_classes(total, key):
    places = keyed_permutation(torch.arange(total), total, key)
    assert sorted(places.tolist()) == list(range(total))


def test_every_place_is_as_likely_however_few_the_rounds(monkeypatch):
    monkeypatch.setattr(class_sampling, "_ROUNDS", 0)
    first = torch.tensor([0])
    keys = [mix_integers(1, k) for k in range(1000)]
    places = torch.cat([keyed_permutation(first, 4096, key) for key in keys])
    quarters = torch.bincount(places // 1024, minlength=4)
    assert ((quarters - 250).abs() < 70).all()  # five standard deviations


def test_a_permutation_puts_every_class_everywhere_alike():
    places = torch.stack(
        [keyed_permutation(torch.arange(12), 12, mix_integers(1, k)) for k in range(2400)]
    )
    counts = torch.stack([(places == c).sum(0) for c in range(12)]).double()
    chi_squared = ((counts - 200) ** 2 / 200).sum().item()
    assert chi_squared < 121 + 4 * (2 * 121) ** 0.5  # 11 x 11 degrees of freedom


@pytest.mark.parametrize("total", [2, 3, 4, 5])
def test_all_permutations_of_a_handful_are_as_likely(total):
    keys = [mix_integers(2, n) for n in range(40 * math.factorial(total))]
    orders = (keyed_permutation(torch.arange(total), total, key) for key in keys)
    found = Counter(tuple(order.tolist()) for order in orders)
    chi_squared = sum((count - 40) ** 2 / 40 for count in found.values())
    freedom = math.factorial(total) - 1
    assert len(found) == freedom + 1
    assert chi_squared <= freedom + 5 * (2 * freedom) ** 0.5


def test_keyed_numbers_are_even_and_differ_by_key():
    numbers = keyed_uniform(20_000, mix_integers(3), _CPU)
    assert 0 <= numbers.min() < numbers.max() < 1
    assert numbers.histc(10).sub(2000).abs().max() < 6 * (20_000 * 0.1 * 0.9) ** 0.5
    assert (keyed_uniform(20_000, mix_integers(4), _CPU) == numbers).sum() < 3


@pytest.mark.parametrize("kind", _SAMPLERS)
def test_classes_are_drawn_as_often_as_log_q_says(kind):
    sampler, seen, draws = _sampler(kind), torch.zeros(200), 2000
    for step in range(draws):
        seen[sampler.draw(step).unique()] += 1
    chance = sampler.log_inclusion(torch.arange(200)).exp()
    deviations = (seen / draws - chance) / (chance * (1 - chance) / draws).sqrt().clamp(min=1e-4)
    assert deviations.abs().max() < 5
    assert deviations.square().mean() == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("kind", _SAMPLERS)
def test_another_seed_or_step_draws_others(kind):
    draws = [_sampler(kind, seed=seed).draw(step) for seed, step in ((0, 0), (1, 0), (0, 1))]
    again = _sampler(kind).draw(0)
    assert [torch.equal(again, drawn) for drawn in draws] == [True, False, False]


def test_a_class_without_images_is_as_popular_as_one_with_one():
    settings = HeadSettings(sampler="popularity", num_sampled=3)
    few, none = (
        ClassSampler(3, settings, seed=0, device=_CPU, class_counts=torch.tensor(counts))
        for counts in ([7, 1, 1], [7, 0, 1])
    )
    assert torch.equal(few.log_inclusion(torch.arange(3)), none.log_inclusion(torch.arange(3)))


def test_uniform_draws_are_distinct():
    sampler = _sampler("uniform")
    assert all(len(sampler.draw(step).unique()) == 30 for step in range(50))


def test_popularity_without_counts_is_refused():
    with pytest.raises(SettingsError, match=r"set head\.sampler to uniform or log-uniform"):
        ClassSampler(9, HeadSettings(sampler="popularity"), seed=0, device=_CPU)


def _slow_present(sampler, positives, step, shard):
    """Row numbers and chances of one shard, by sets and dicts."""
    own = {c for c in positives.tolist() if shard[0] <= c < shard[1]}
    drawn = {c for c in sampler.draw(step).tolist() if shard[0] <= c < shard[1]}
    classes = sorted(own | drawn)
    log_q = [0.0 if c in own else sampler.log_inclusion(torch.tensor([c])).item() for c in classes]
    return [c - shard[0] for c in classes], log_q


@pytest.mark.parametrize("kind", _SAMPLERS)
@given(
    step=st.integers(0, 1000),
    positives=st.lists(st.integers(-1, 199), min_size=1, max_size=9),
    first=st.integers(0, 200),
    size=st.integers(0, 200),
    trim=st.booleans(),
)
def test_a_shard_holds_what_was_drawn_and_the_batchs_own(kind, step, positives, first, size, trim):
    sampler, shard = _sampler(kind), (first, min(first + size, 200))
    positives = torch.tensor(positives)
    rows, log_q, padding = present_classes(
        sampler,
        positives,
        step=step,
        shard=shard,
        most_drawn=sampler.most_present(*shard),
        log_q=True,
        trim=trim,
    )
    expected_rows, expected_log_q = _slow_present(sampler, positives, step, shard)
    real = slice(None) if padding is None else ~padding
    assert rows[real].tolist() == expected_rows
    assert log_q[real].tolist() == pytest.approx(expected_log_q)
    assert (rows[len(expected_rows) :] == shard[1] - shard[0]).all()


@pytest.mark.parametrize("kind", _SAMPLERS)
def test_shards_together_hold_the_same_classes_as_one(kind):
    sampler, positives = _sampler(kind), torch.tensor([5, 199, 5])

    def rows(shard):
        found = present_classes(
            sampler, positives, step=4, shard=shard, most_drawn=200, log_q=True, trim=True
        )
        return torch.stack([found.rows_S + shard[0], found.log_q_S])

    parts = [rows((0, 67)), rows((67, 134)), rows((134, 200))]
    assert torch.equal(torch.cat(parts, 1), rows((0, 200)))


@pytest.mark.parametrize("kind", _SAMPLERS)
def test_the_room_for_drawn_classes_is_never_too_small(kind):
    sampler = _sampler(kind, num_classes=3000, num_sampled=300)
    room = sampler.most_present(0, 1000)
    drawn = [sampler.draw(step).unique() for step in range(300)]
    assert max(int((classes < 1000).sum()) for classes in drawn) <= room < 1000
