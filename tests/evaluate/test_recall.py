"""Recall between images and captions, against a reference that sorts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate import recall as module
from openmofi.evaluate.recall import recall


def _slow(queries, targets, right, k):
    """Share of queries with a right target among the first k, of equals by chance."""
    found = []
    for query, vector in enumerate(queries):
        scores = [float(vector @ target) for target in targets]
        best = max(score for target, score in enumerate(scores) if right(query, target))
        equal = [t for t, score in enumerate(scores) if score == best]
        good = sum(right(query, target) for target in equal)
        left = max(k - sum(score > best for score in scores), 0)
        misses = math.comb(len(equal) - good, left) / max(math.comb(len(equal), left), 1)
        found.append(1 - misses)
    return np.mean(found)


@given(st.integers(0, 10_000), st.booleans())
def test_recall_equals_the_slow_reference_also_of_ties(seed, tied):
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, 2, (45, 3)) if tied else rng.standard_normal((45, 3))
    images, texts = np.split(values.astype(np.float32), [15])
    owner = rng.permutation(np.concatenate([np.arange(15), rng.integers(15, size=15)]))
    scores = dict(recall(images, texts, owner))
    for k in (1, 5, 10):
        to_image = _slow(texts, images, lambda t, i: owner[t] == i, k)
        to_text = _slow(images, texts, lambda i, t: owner[t] == i, k)
        assert scores[f"image_retrieval_recall@{k}"] == pytest.approx(to_image)
        assert scores[f"text_retrieval_recall@{k}"] == pytest.approx(to_text)


def test_any_caption_of_the_image_will_do():
    images = np.eye(2, dtype=np.float32)
    texts = np.array([[0, 1], [1, 0], [0, 1]], dtype=np.float32)
    scores = dict(recall(images, texts, np.array([0, 0, 1])))
    assert scores["text_retrieval_recall@1"] == 0.75  # texts 0 and 2 are as near to image 1
    assert scores["image_retrieval_recall@1"] == pytest.approx(2 / 3)


def test_equal_vectors_score_as_chance_does():
    same = np.ones((50, 2), dtype=np.float32)
    scores = dict(recall(same, same, np.arange(50)))
    at_5 = scores["image_retrieval_recall@5"], scores["text_retrieval_recall@5"]
    assert at_5 == pytest.approx((0.1, 0.1))


def test_blocks_change_nothing(rng, monkeypatch):
    images, texts = (rng.standard_normal((n, 4)).astype(np.float32) for n in (20, 40))
    owner = np.arange(40) % 20
    whole = dict(recall(images, texts, owner))
    monkeypatch.setattr(module, "_SCORES_AT_ONCE", 70)
    assert dict(recall(images, texts, owner)) == whole


@pytest.mark.parametrize(
    ("owner", "says"), [([0, 0, 1], "1 of 3 images have no text"), ([0, 1, 2, 3], "and 1 texts")]
)
def test_images_and_texts_without_their_other_half_are_refused(owner, says):
    vectors = np.ones((4, 2), dtype=np.float32)
    with pytest.raises(InputError, match=says):
        dict(recall(vectors[:3], vectors[: len(owner)], np.array(owner)))
