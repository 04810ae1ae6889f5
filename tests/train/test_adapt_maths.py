"""The losses of `adapt` against slow references in plain Python, and what is held out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import AdaptSettings
from openmofi.errors import InputError
from openmofi.train.adapt_score import HeldOutScore, at_most, harms, is_better, score, split
from openmofi.train.linear_maps import (
    EntityTexts,
    Examples,
    Fit,
    Maps,
    also_right,
    class_means,
    logit_scale_for,
    relative_distance,
    shuffled_batches,
)


def _examples(*, count=6, dim=4, classes=3, texts=True, seed=0):
    random = np.random.default_rng(seed)
    targets = np.stack([np.arange(count) % classes, np.full(count, -1)], 1)
    targets[0, 1] = 2  # the first image shows another entity, too
    vectors = random.normal(size=(count, dim)).astype(np.float32)
    known = random.normal(size=(2, classes, dim)).astype(np.float16)
    groups = np.arange(2 * classes).reshape(2, classes)
    groups[1, 1] = groups[1, 0]  # two entities that read the same
    entity_texts = EntityTexts(known, groups, 7.0) if texts else None
    return Examples(vectors, np.arange(count), targets, classes, entity_texts)


def _fit(examples, **settings):
    fit = Fit(examples, AdaptSettings(scale=5.0, batch_size=6, **settings), pull=0.7)
    torch.manual_seed(1)
    for trained in (fit.maps.image_DD, fit.maps.text_DD):
        trained.data += 0.3 * torch.randn_like(trained)
    fit.maps.image_mean_D, fit.maps.text_mean_D = torch.full((2, fit.maps.image_DD.shape[0]), 0.1)
    return fit


def _unit(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def _mapped(matrix, vector):
    less = [x - 0.1 for x in _unit(vector)]
    return _unit([sum(m * x for m, x in zip(row, less, strict=True)) for row in matrix.tolist()])


def _dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def _cross_entropy(logits, target):
    return math.log(sum(math.exp(z) for z in logits.values())) - logits[target]


def test_the_classification_loss_equals_a_slow_cosface():
    examples = _examples(texts=False)
    fit, expected = _fit(examples), 0.0
    for vector, targets in zip(examples.vectors.tolist(), examples.targets_MK, strict=True):
        image = _mapped(fit.maps.image_DD.detach(), vector)
        cosines = [_dot(image, _unit(row)) for row in fit.head.rows_ND.tolist()]
        kept = {c: 5 * z for c, z in enumerate(cosines) if c == targets[0] or c not in targets}
        kept[targets[0]] = 5 * (cosines[targets[0]] - 0.15)
        expected += _cross_entropy(kept, targets[0]) / len(examples.vectors)
    found = fit.losses(np.arange(6), 1)["supervised"].item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_text_loss_equals_a_slow_masked_infonce():
    examples = _examples()
    fit, texts = _fit(examples), examples.texts
    key = random_key(0, Purpose.ADAPT_TEXTS, 1)
    kinds = np.random.default_rng(key).integers(2, size=6)  # what step 1 draws
    own = examples.targets_MK[:, 0]
    images = [_mapped(fit.maps.image_DD.detach(), v) for v in examples.vectors.tolist()]
    chosen = [
        texts.vectors_TND[k, c].astype(float).tolist() for k, c in zip(kinds, own, strict=True)
    ]
    mapped = [_mapped(fit.maps.text_DD.detach(), v) for v in chosen]
    reads = texts.groups_TN[kinds, own]

    def fits(i, j):  # text j is not a negative of image i
        return i != j and (own[j] in examples.targets_MK[i] or reads[i] == reads[j])

    expected = 0.0
    for i in range(6):
        logits = {j: 7 * _dot(images[i], mapped[j]) for j in range(6) if not fits(i, j)}
        back = {j: 7 * _dot(images[j], mapped[i]) for j in range(6) if not fits(j, i)}
        expected += (_cross_entropy(logits, i) + _cross_entropy(back, i)) / 12
    found = fit.losses(np.arange(6), 1)["contrastive"].item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_pull_is_the_mean_squared_distance_per_dimension():
    fit = _fit(_examples())
    slow = 0.0
    for matrix in (fit.maps.image_DD.tolist(), fit.maps.text_DD.tolist()):
        for i, row in enumerate(matrix):
            slow += sum((m - (i == j)) ** 2 for j, m in enumerate(row)) / 4
    assert fit.losses(np.arange(6), 1)["pull"].item() == pytest.approx(0.7 * slow, rel=1e-5)
    assert relative_distance(2 * torch.eye(9), torch.eye(9)).item() == pytest.approx(1.0)


def test_an_entity_without_text_teaches_nothing_about_texts():
    examples = _examples()
    examples.texts.groups_TN[:, 1] = -1
    fit = _fit(examples)
    contrastive = fit.losses(np.array([1, 4]), 1)["contrastive"]  # both of class 1
    assert contrastive.item() == 0.0
    assert not contrastive.requires_grad


def test_batches_take_every_vector_once_in_an_order_of_the_seeds_own():
    orders = []
    for seed in (0, 0, 1):
        batches = _fit(_examples(count=30), seed=seed)._order
        orders.append(np.concatenate([next(batches) for _ in range(5)]).tolist())
        assert sorted(orders[-1]) == list(range(30))
    assert orders[0] == orders[1] != orders[2]


def test_the_step_size_falls_to_zero_as_a_cosine():
    fit, found = _fit(_examples(), learning_rate=0.3, steps=4), []
    for _ in range(4):
        fit.advance(1)
        found.append(fit._adam.param_groups[0]["lr"])
    # In units of the identity's entries: the root of their mean square is 1/2 in 4 x 4.
    assert found == pytest.approx([0.15 * (1 + math.cos(math.pi * n / 4)) / 2 for n in range(4)])


def test_a_strong_pull_keeps_the_identity_and_none_leaves_it():
    moved = []
    for pull in (0.0, 1e4):
        fit = Fit(_examples(texts=False), AdaptSettings(steps=50, batch_size=6), pull=pull)
        fit.advance(50)
        moved.append(relative_distance(fit.maps.image_DD, torch.eye(4)).item())
    assert moved[1] < 1e-4 < moved[0]


def test_class_rows_begin_as_the_means_of_unit_vectors():
    examples = _examples(texts=False)
    unit = F.normalize(torch.from_numpy(examples.vectors), dim=1)
    slow = torch.stack([unit[examples.targets_MK[:, 0] == c].mean(0) for c in range(3)])
    torch.testing.assert_close(class_means(examples, Maps.identity(4)), F.normalize(slow, dim=1))


@given(st.integers(2, 40), st.integers(1, 17))
def test_every_vector_comes_once_before_any_comes_again(count, size):
    batches = shuffled_batches(count, min(max(size, 2), count), 0)
    seen = np.concatenate([next(batches) for _ in range(2 * count)])
    assert all(len(set(seen[i : i + count])) == count for i in range(0, len(seen) - count, count))


def test_a_text_is_right_for_the_other_entities_of_an_image_but_not_the_other_way():
    targets = np.array([[0, 1], [1, -1], [2, -1]])
    expected = [[False, True, False], [False, False, False], [False, False, False]]
    assert also_right(targets, np.array([0, 1, 2])).tolist() == expected


def test_the_scale_grows_with_the_number_of_classes():
    assert logit_scale_for(2) == 1.0
    assert logit_scale_for(1001) == pytest.approx(math.sqrt(2) * math.log(1000))


@given(st.lists(st.integers(1, 9), min_size=8, max_size=60), st.integers(0, 5))
def test_a_split_keeps_whole_entities_apart_and_two_of_each_halved(counts, seed):
    if sum(count >= 2 for count in counts) < 1:
        return
    targets = np.repeat(np.arange(len(counts)), counts)
    parts = split(targets, [f"e{i}" for i in range(len(counts))], share=0.1, seed=seed)
    joined = np.sort(np.concatenate([parts.train, parts.known, parts.unseen]))
    assert (joined == np.arange(len(targets))).all()
    assert not set(targets[parts.unseen]) & set(targets[np.r_[parts.train, parts.known]])
    for entity in set(targets[parts.known]):
        assert min((targets[part] == entity).sum() for part in (parts.known, parts.train)) >= 2


@pytest.mark.parametrize(
    ("count", "share", "unseen"), [(400, 0.1, 40), (100, 0.1, 20), (40, 0.1, 10)]
)
def test_at_least_twenty_entities_or_a_quarter_are_held_out(count, share, unseen):
    targets = np.repeat(np.arange(count), 4)
    parts = split(targets, [f"e{i}" for i in range(count)], share=share, seed=0)
    assert len(set(targets[parts.unseen])) == len(set(targets[parts.known])) == unseen


def test_what_is_held_out_follows_from_the_entities_and_not_from_their_order():
    ids, targets = [f"e{i}" for i in range(30)], np.repeat(np.arange(30), 4)
    parts = split(targets, ids, share=0.1, seed=3)
    turned = split(29 - targets, ids[::-1], share=0.1, seed=3)
    np.testing.assert_array_equal(parts.unseen, turned.unseen)
    assert set(split(targets, ids, share=0.1, seed=4).unseen) != set(parts.unseen)


def test_entities_of_one_image_each_cannot_be_tested():
    with pytest.raises(InputError, match="too few"):
        split(np.arange(9), [str(i) for i in range(9)], share=0.1, seed=0)


def test_at_most_keeps_entities_whole():
    targets = np.repeat(np.arange(10), 5)
    kept = at_most(np.arange(50), targets, 23)
    assert sorted(np.bincount(targets[kept], minlength=10)) == [0] * 6 + [5] * 4


def test_entities_count_alike_in_a_score():
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1], [1, 0]], np.float32)
    found = score(vectors, np.array([0, 0, 1, 1, 1, 2]), num_known=2)
    assert found.known == pytest.approx(3 / 4)  # one of two equally near images is right
    assert found.unseen == pytest.approx(1.0)
    assert len(found.per_entity[1]) == 1  # one image asks for nothing
    assert found.mean == pytest.approx(7 / 8)
    alone = score(vectors, np.array([0, 0, 1, 1, 1, 2]), num_known=2, known_alone=True)
    assert alone.known == pytest.approx(1.0)  # the last one is not in the way
    assert alone.unseen == found.unseen


def _score(known, unseen):
    parts = (np.array(known, float), np.array(unseen, float))
    means = [part.mean() if len(part) else math.nan for part in parts]
    return HeldOutScore(*means, parts)


@pytest.mark.parametrize(
    ("known", "unseen", "better"),
    [
        ([0.6, 0.7, 0.8], [0.6, 0.7, 0.8], True),
        ([0.9, 0.3, 0.6], [0.9, 0.4, 0.5], False),  # as much lost as won
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], False),
        ([0.5, 0.6, 0.76], [0.5, 0.6, 0.76], False),  # 1.4 standard errors
        ([0.52, 0.64, 0.72], [0.52, 0.64, 0.72], True),  # 5.7
    ],
)
def test_a_gain_must_be_more_than_chance(known, unseen, better):
    old = _score([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert is_better(_score(known, unseen), old) is better


def test_a_part_that_gets_worse_is_harm_and_one_that_is_not_there_is_none():
    assert harms(_score([0.9], [0.4]), _score([0.5], [0.5]))
    assert not harms(_score([], [0.6]), _score([], [0.5]))
