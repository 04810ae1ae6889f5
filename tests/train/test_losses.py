"""Every loss against a slow reference that shares no code with it."""

import math
from typing import get_args, get_type_hints

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from openmofi.config import LossSettings
from openmofi.train.losses import IMAGE_TEXT, TEACHER_SCALE, distillation, info_nce, siglip


def _unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


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
    keys = None if groups is None else groups[:, None]
    got = info_nce(images, texts, torch.tensor(1.5), keys_bM=keys)
    expected = _slow_info_nce(
        images.tolist(), texts.tolist(), 1.5, groups.tolist() if grouped else None
    )
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_each_image_text_loss_of_the_settings_is_in_the_table():
    assert tuple(IMAGE_TEXT) == get_args(get_type_hints(LossSettings)["image_text"])


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


def _slow_siglip(images, texts, scale, bias, groups):
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            if i != j and groups is not None and groups[i] == groups[j] >= 0:
                continue
            logit = math.exp(scale) * sum(x * y for x, y in zip(image, text, strict=True)) + bias
            total += math.log1p(math.exp(-logit if i == j else logit))
    return total / len(images)


# Three images show a second entity or a third; the fifth repeats its own, as no data should.
_MEANT = [0, 1, 0, 2, 3, -1]
_ALSO = [[1, 3], [-1, -1], [2, -1], [-1, 0], [3, -1], [-1, -1]]
_TEXTS = [7, 8, 9, 10, 11, 8]


def _fits(i, j):
    """Whether text j is right for image i."""
    return _TEXTS[i] == _TEXTS[j] or _MEANT[j] in {_MEANT[i], *_ALSO[i]} - {-1}


def _slow_losses(images, texts, scale, bias):
    """InfoNCE and the sigmoid loss, a pair at a time; what fits is not a negative."""
    logits = [[scale * _dot(image, text) for text in texts] for image in images]
    softmax, sigmoid, count = 0.0, 0.0, len(images)
    for i in range(count):
        row = [logits[i][j] for j in range(count) if j == i or not _fits(i, j)]
        column = [logits[j][i] for j in range(count) if j == i or not _fits(j, i)]
        softmax += sum(math.log(sum(map(math.exp, v))) - logits[i][i] for v in (row, column))
        for j in range(count):
            if j == i or not _fits(i, j):
                logit = logits[i][j] + bias
                sigmoid += math.log1p(math.exp(-logit if j == i else logit))
    return softmax / (2 * count), sigmoid / count


@pytest.mark.parametrize("chunk", [1, 4, 9])
def test_a_text_is_no_negative_of_an_image_that_shows_its_entity(chunk):
    images, texts = _unit(6, 4, seed=3), _unit(6, 4, seed=4)
    keys = torch.tensor([_MEANT, _TEXTS]).T
    known = {"keys_bM": keys, "shown_bK": torch.tensor(_ALSO)}
    scale, bias = torch.tensor(1.5), torch.tensor(-2.0)
    softmax, sigmoid = _slow_losses(images.tolist(), texts.tolist(), math.exp(1.5), -2.0)
    assert info_nce(images, texts, scale, **known).item() == pytest.approx(softmax, rel=1e-5)
    got = siglip(images, texts, scale, bias, chunk=chunk, **known).item()
    assert got == pytest.approx(sigmoid, rel=1e-5)
    assert info_nce(images, texts, scale, keys_bM=keys).item() != pytest.approx(softmax, rel=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 7))
def test_siglip_in_chunks_equals_the_slow_reference(seed, grouped, chunk):
    images, texts = _unit(6, 4, seed=seed), _unit(6, 4, seed=seed + 1)
    groups = torch.tensor([0, 0, 1, -1, -1, 1]) if grouped else None
    keys = None if groups is None else groups[:, None]
    scale, bias = torch.tensor(1.5), torch.tensor(-2.0)
    got = siglip(images, texts, scale, bias, keys_bM=keys, chunk=chunk)
    lists = (images.tolist(), texts.tolist(), 1.5, -2.0, groups.tolist() if grouped else None)
    assert got.item() == pytest.approx(_slow_siglip(*lists), rel=1e-4)


def test_the_chunks_of_siglip_give_the_gradients_of_the_whole():
    grads = []
    for chunk in (2, 100):
        tensors = [_unit(7, 4, seed=1), _unit(7, 4, seed=2), torch.tensor(2.0), torch.tensor(-1.0)]
        leaves = [tensor.requires_grad_() for tensor in tensors]
        siglip(*leaves, chunk=chunk).backward()
        grads.append([leaf.grad for leaf in leaves])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_pair_that_shares_any_key_is_no_negative():
    images, texts = _unit(3, 4, seed=1), _unit(3, 4, seed=2)
    by_entity = torch.tensor([[5, 10], [5, 11], [6, 12]])
    by_text = torch.tensor([[5, 10], [7, 10], [6, 12]])
    one, other = (
        info_nce(images, texts, torch.tensor(1.0), keys_bM=k) for k in (by_entity, by_text)
    )
    assert one.item() == other.item()
    assert one < info_nce(images, texts, torch.tensor(1.0))


def _softmax(row):
    peak = max(row)
    exps = [math.exp(value - peak) for value in row]
    return [value / sum(exps) for value in exps]


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _slow_distillation(images, texts, scale, teachers):
    total = 0.0
    for side in (0, 1):
        own, others = (images, texts) if side == 0 else (texts, images)
        for i in range(len(own)):
            wanted = [0.0] * len(own)
            for pair in teachers:
                row = _softmax([TEACHER_SCALE * _dot(pair[side][i], o) for o in pair[1 - side]])
                wanted = [w + r / len(teachers) for w, r in zip(wanted, row, strict=True)]
            got = _softmax([math.exp(scale) * _dot(own[i], other) for other in others])
            total -= sum(w * math.log(g) for w, g in zip(wanted, got, strict=True))
    return total / (2 * len(images))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_distillation_equals_the_slow_reference(seed, count):
    images, texts = _unit(5, 4, seed=seed), _unit(5, 4, seed=seed + 1)
    pairs = [(_unit(5, 3 + n, seed=seed + n), _unit(5, 3 + n, seed=seed - n)) for n in range(count)]
    got = distillation(images, texts, torch.tensor(1.5), pairs)
    lists = [(one.tolist(), two.tolist()) for one, two in pairs]
    expected = _slow_distillation(images.tolist(), texts.tolist(), 1.5, lists)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    images, texts = _unit(6, 8, seed=1), _unit(6, 8, seed=2)
    leaves = [images.clone().requires_grad_(), texts.clone().requires_grad_()]
    scale = torch.tensor(math.log(TEACHER_SCALE))
    distillation(*leaves, scale, [(images, texts)]).backward()
    assert all(leaf.grad.abs().max() < 1e-4 for leaf in leaves)
