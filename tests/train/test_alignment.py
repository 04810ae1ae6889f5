"""Bringing two encoders' vectors together: closed form and losses against slow references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import eigh

from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import PairSettings
from openmofi.evaluate.recall import recall
from openmofi.train.alignment import (
    PairVectors,
    Refinement,
    best_scale,
    canonical_alignments,
    class_rows,
    right_for_others,
)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _pairs(count=300, *, width=7, height=5, kinds=1, classes=0, seed=0):
    """Images and texts that share three directions, each beside noise of its own."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(count, 3))
    noise = random.normal(size=(count, width)), random.normal(size=(count, height))
    images = common @ random.normal(size=(3, width)) + 0.5 * noise[0] + 1
    texts = common @ random.normal(size=(3, height)) + 0.5 * noise[1]
    table = np.full((count, kinds), -1)
    table[:, 0] = np.arange(count)
    owner = np.arange(count) % classes if classes else np.full(count, -1)
    return PairVectors(
        images.astype(np.float32),
        texts.astype(np.float32),
        np.arange(count),
        table,
        owner,
        classes,
    )


def _first(pairs, dim, form):
    return next(found for name, found in canonical_alignments(pairs, dim) if name == form)


def _canonical(pairs, ridge):
    """Returns (covariances, correlations): X^-1 C Y^-1 C' u = r^2 u (Hotelling 1936)."""
    x = _unit(pairs.images.astype(float)) - _unit(pairs.images.astype(float)).mean(0)
    y = _unit(pairs.texts.astype(float)) - _unit(pairs.texts.astype(float)).mean(0)
    cov_x, cov_y, between = (a.T @ b / len(x) for a, b in ((x, x), (y, y), (x, y)))
    for cov in (cov_x, cov_y):
        cov += ridge * np.trace(cov) / len(cov) * np.eye(len(cov))
    squares = eigh(between @ np.linalg.solve(cov_y, between.T), cov_x, eigvals_only=True)[::-1]
    return cov_x, cov_y, between, np.sqrt(squares[:3])


@pytest.mark.parametrize("ridge", [0.03, 1.0])
def test_the_closed_form_finds_the_canonical_correlations(ridge):
    pairs = _pairs()
    cov_x, cov_y, between, expected = _canonical(pairs, ridge)
    found = _first(pairs, 3, (ridge, 1.0))
    image, text = found.image_DI.double().numpy(), found.text_DJ.double().numpy()
    strengths = np.diag(image @ between @ text.T) / np.sqrt(
        np.diag(image @ cov_x @ image.T) * np.diag(text @ cov_y @ text.T)
    )
    np.testing.assert_allclose(strengths, expected, rtol=1e-4)


def test_directions_weigh_as_their_correlation_to_the_power():
    pairs = _pairs()
    cov_x, _, _, correlations = _canonical(pairs, 0.1)
    for power in (0.5, 1.0):
        image = _first(pairs, 3, (0.1, power)).image_DI.double().numpy()
        weights = np.sqrt(np.diag(image @ cov_x @ image.T))  # whitened but for the power
        expected = correlations**power
        np.testing.assert_allclose(weights / weights[0], expected / expected[0], rtol=1e-3)


def test_the_closed_form_brings_new_pairs_together():
    pairs, new = _pairs(seed=0, count=600), None
    train, new = pairs.take(np.arange(400)), np.arange(400, 600)
    found = _first(train, 3, (0.1, 1.0))
    images, texts = found.of_images(pairs.images[new]), found.of_texts(pairs.texts[new])
    scores = dict(recall(images, texts, np.arange(200)))
    assert scores["image_retrieval_recall@10"] > 0.5  # by chance .05


@given(st.permutations(range(20)))
def test_the_order_of_the_pairs_changes_nothing(order):
    pairs = _pairs(20)
    shuffled = _first(pairs.take(np.array(order)), 3, (0.3, 1.0))
    found = _first(pairs, 3, (0.3, 1.0))
    product = found.image_DI.T @ found.text_DJ  # free of the axes' signs
    torch.testing.assert_close(
        shuffled.image_DI.T @ shuffled.text_DJ, product, rtol=1e-3, atol=1e-3
    )


def _slow_infonce(images, texts, masked, scale):
    loss, count = 0.0, len(images)
    for a, b, skip in ((images, texts, masked), (texts, images, np.array(masked).T)):
        for i in range(count):
            logits = {
                j: scale * sum(p * q for p, q in zip(a[i], b[j], strict=True))
                for j in range(count)
                if not skip[i][j]
            }
            loss += math.log(sum(map(math.exp, logits.values()))) - logits[i]
    return loss / (2 * count)


def test_the_contrastive_loss_equals_a_slow_one():
    pairs = _pairs(12, kinds=2, classes=3)
    pairs.texts_MK[:, 1] = 12 % 12 + pairs.classes_M  # rows 0 to 2 also name the entities
    start = _first(pairs, 3, (0.3, 1.0))
    fit = Refinement(pairs, PairSettings(supervised=0.0), start, scale=9.0)
    places = np.arange(8)
    found = fit.losses(places)["contrastive"].item()
    key = random_key(0, Purpose.PAIR_TEXTS, 0)
    kinds = np.random.default_rng(key).integers(2, size=8)
    rows = pairs.texts_MK[places, kinds]
    classes = pairs.classes_M[places]
    masked = [
        [i != j and (rows[i] == rows[j] or (kinds[j] == 1 and classes[i] == classes[j]))
         for j in range(8)] for i in range(8)
    ]  # fmt: skip
    images, texts = start.of_images(pairs.images[places]), start.of_texts(pairs.texts[rows])
    expected = _slow_infonce(images.tolist(), texts.tolist(), masked, 9.0)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_caption_of_the_same_entity_stays_a_negative_and_its_name_does_not():
    texts, classes = np.array([0, 1, 2, 0]), np.array([5, 5, -1, -1])
    found = right_for_others(texts, classes, np.array([False, True, True, False]))
    assert found.nonzero().tolist() == [[0, 1], [0, 3], [3, 0]]


def test_steps_lower_the_loss_and_the_same_seed_takes_the_same_steps():
    pairs = _pairs(200, classes=4)
    start = _first(pairs, 3, (3.0, 0.5))
    fits = [Refinement(pairs, PairSettings(batch_size=64), start, scale=10.0) for _ in range(2)]
    first = [fit.advance(1) for fit in fits]
    last = [fit.advance(60) for fit in fits]
    assert first[0] == first[1]
    assert last[0] == last[1]
    assert sum(last[0].values()) < sum(first[0].values()) - 0.1


def test_class_rows_are_the_directions_of_the_classes_means():
    pairs = _pairs(40, classes=4)
    start = _first(pairs, 3, (0.3, 1.0))
    mapped = start.of_images(pairs.images)
    means = np.array([mapped[pairs.classes_M == c].mean(0) for c in range(4)])
    found = class_rows(pairs, start, seed=0).rows_ND.numpy()
    np.testing.assert_allclose(found, _unit(means), atol=1e-5)


def test_the_best_scale_is_low_where_pairs_are_far_apart():
    sure = _unit(np.eye(20)).astype(np.float32)
    random = np.random.default_rng(0)
    noise = _unit(sure + 0.6 * random.normal(size=sure.shape)).astype(np.float32)
    assert best_scale(sure, sure) >= 20  # where the loss has no digit left
    assert best_scale(sure, noise) < 20
