"""Every loss against a slow reference that shares no code with it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from openmofi.train.losses import cosface, info_nce


def _unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def _slow_cosface(cosines, targets, margin, scale, correction, masked):
    total = 0.0
    for row, target in enumerate(targets):
        logits = []
        for column, cosine in enumerate(cosines[row]):
            if masked[row][column] and column != target:
                continue
            logit = scale * (cosine - (margin if column == target else 0.0))
            logits.append((column, logit - correction[column]))
        peak = max(value for _, value in logits)
        log_sum = peak + math.log(sum(math.exp(value - peak) for _, value in logits))
        total += log_sum - dict(logits)[target]
    return total / len(targets)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.5), st.floats(1, 64))
def test_cosface_equals_the_slow_reference(seed, margin, scale):
    generator = torch.Generator().manual_seed(seed)
    cosines = _unit(5, 8, seed=seed) @ _unit(7, 8, seed=seed + 1).T
    targets = torch.randint(7, (5,), generator=generator)
    correction = torch.rand(7, generator=generator)
    masked = torch.rand(5, 7, generator=generator) < 0.3
    got = cosface(
        cosines, targets, margin=margin, scale=scale, log_correction_C=correction, masked_BC=masked
    )
    lists = (cosines.tolist(), targets.tolist(), margin, scale, correction.tolist())
    assert got.item() == pytest.approx(_slow_cosface(*lists, masked.tolist()), rel=1e-4, abs=1e-5)


def test_margin_lowers_only_the_true_class():
    cosines = torch.tensor([[0.6, 0.5]])
    target = torch.tensor([0])
    plain = cosface(cosines, target, margin=0.0, scale=1.0)
    margined = cosface(cosines, target, margin=0.1, scale=1.0)
    shifted = cosface(cosines - torch.tensor([[0.1, 0.0]]), target, margin=0.0, scale=1.0)
    assert margined > plain
    assert margined.item() == pytest.approx(shifted.item())


def _slow_info_nce(images, texts, scale, groups):
    total, count = 0.0, len(images)
    for a, b in ((images, texts), (texts, images)):
        for i in range(count):
            row = [
                (j, math.exp(scale) * sum(x * y for x, y in zip(a[i], b[j], strict=True)))
                for j in range(count)
                if j == i or groups is None or groups[i] < 0 or groups[i] != groups[j]
            ]
            total += math.log(sum(math.exp(v) for _, v in row)) - dict(row)[i]
    return total / (2 * count)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_info_nce_equals_the_slow_reference(seed, grouped):
    images, texts = _unit(6, 4, seed=seed), _unit(6, 4, seed=seed + 1)
    groups = torch.tensor([0, 0, 1, -1, -1, 1]) if grouped else None
    got = info_nce(images, texts, torch.tensor(1.5), groups_B=groups)
    expected = _slow_info_nce(
        images.tolist(), texts.tolist(), 1.5, groups.tolist() if grouped else None
    )
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_info_nce_does_not_care_about_the_order_of_pairs():
    images, texts = _unit(6, 4, seed=1), _unit(6, 4, seed=2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    one = info_nce(images, texts, torch.tensor(2.0))
    other = info_nce(images[order], texts[order], torch.tensor(2.0))
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


def test_logit_scale_is_capped_at_one_hundred():
    images, texts = _unit(4, 8, seed=1), _unit(4, 8, seed=2)
    capped = info_nce(images, texts, torch.tensor(50.0))
    assert capped.item() == pytest.approx(
        info_nce(images, texts, torch.tensor(math.log(100))).item()
    )
