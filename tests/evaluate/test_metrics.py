"""Measures against slow references that share no code with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate import gpr1200
from openmofi.evaluate.knn import knn
from openmofi.evaluate.metrics import average_precisions, label_scores, nearest
from openmofi.evaluate.retrieval import retrieval


def _unit(rng, *shape):
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _slow_ap(vectors, labels, query, include_self):
    others = [i for i in range(len(labels)) if include_self or i != query]
    ranked = sorted(others, key=lambda i: -float(vectors[query] @ vectors[i]))
    hits, precisions = 0, []
    for rank, i in enumerate(ranked, 1):
        if labels[i] == labels[query]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / len(precisions) if precisions else float("nan")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_average_precision_equals_the_slow_reference(seed, include_self):
    rng = np.random.default_rng(seed)
    vectors, labels = _unit(rng, 30, 5), rng.integers(6, size=30)
    got = average_precisions(vectors, labels, include_self=include_self)
    expected = [_slow_ap(vectors, labels, q, include_self) for q in range(30)]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_equal_embeddings_score_like_chance_and_not_like_file_order():
    labels = np.repeat(np.arange(10), 10)
    vectors = np.ones((100, 4), dtype=np.float32) / 2
    scores = average_precisions(vectors, labels, include_self=False)
    assert scores.mean() == pytest.approx(9 / 99, abs=0.05)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(bad):
    vectors = np.ones((4, 2), dtype=np.float32)
    vectors[2, 1] = bad
    with pytest.raises(InputError, match="1 of 4 embeddings hold NaN"):
        average_precisions(vectors, np.zeros(4, dtype=int), include_self=True)


def test_gpr1200_is_perfect_for_perfect_classes_and_needs_all_images(rng):
    centres = _unit(rng, 1200, 64)
    scores = gpr1200.mean_average_precision(np.repeat(centres, 10, axis=0))
    assert scores["all"] == pytest.approx(1.0)
    assert set(scores) == {"all", *gpr1200.DOMAINS}
    with pytest.raises(InputError, match="12,000"):
        gpr1200.mean_average_precision(np.ones((11_999, 4), dtype=np.float32))


def test_nearest_never_returns_the_query_itself(rng):
    vectors = _unit(rng, 20, 4)
    index, _ = nearest(vectors, vectors, 19, same=True)
    assert all(i not in row for i, row in enumerate(index))


def test_nearest_is_sorted_and_complete(rng):
    queries, gallery = _unit(rng, 3, 4), _unit(rng, 9, 4)
    index, value = nearest(queries, gallery, 9, same=False)
    np.testing.assert_array_equal(index, np.argsort(-(queries @ gallery.T), axis=1))
    assert (np.diff(value, axis=1) <= 0).all()


def test_retrieval_leaves_out_classes_of_one_image():
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    scores = dict(retrieval(vectors, np.array([0, 0, 7])))
    assert scores == {"retrieval_map": 1.0, "top1": 1.0}


def test_knn_follows_the_nearer_class_over_the_larger_one():
    gallery = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    query = np.array([[0.99, 0.14]], dtype=np.float32)
    scores = dict(knn(query, np.array([0]), gallery, np.array([0, 1, 1, 1])))
    assert scores == {"knn": 1.0}


def test_label_scores_count_what_they_say():
    scores = label_scores({("a", 1), ("b", 1)}, {("a", 1), ("b", 2)}, {("a", 1), ("b", 2)})
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.5, 0.5)
    assert label_scores(set(), {("a", 1)}, {("a", 1)})["precision"] == 0.0
