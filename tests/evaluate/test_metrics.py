"""Measures against slow references that share no code with them."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate import knn as knn_module
from openmofi.evaluate import metrics, ranks
from openmofi.evaluate.knn import knn
from openmofi.evaluate.metrics import (
    average_precisions,
    hit_chances,
    label_scores,
    nearest,
    precisions_and_firsts,
)
from openmofi.evaluate.retrieval import retrieval
from openmofi.evaluate.zeroshot import zero_shot


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


def _over_all_orders(scores, positive):
    """Means of average precision and of a positive in front, each order of the images sorted."""
    precisions, firsts = [], []
    for order in itertools.permutations(range(len(scores))):
        found = positive[sorted(order, key=lambda i: -scores[i])]
        ranks = np.flatnonzero(found) + 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        firsts.append(found[0])
    return np.mean(precisions), np.mean(firsts)


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("values", [1, 2, 3])
def test_equal_similarities_score_the_mean_over_all_orders(rng, values, include_self):
    vectors = rng.integers(0, values, (6, 2)).astype(np.float32)
    labels = np.array([0, 1, 0, 0, 1, 0])
    got = precisions_and_firsts(vectors, labels, include_self=include_self)
    for query in range(6):
        kept = (np.arange(6) != query) | include_self
        scores, positive = (vectors @ vectors[query])[kept], (labels == labels[query])[kept]
        expected = _over_all_orders(scores, positive)
        assert (got[0][query], got[1][query]) == pytest.approx(expected)


@pytest.mark.parametrize("count", [30, 230])
def test_many_equal_similarities_score_the_mean_over_random_orders(rng, count):
    """Classes of up to a hundred and of more are counted differently."""
    vectors, labels = np.ones((count, 3), np.float32), np.arange(count) % 2
    got = average_precisions(vectors, labels, include_self=True)
    found = np.argsort(rng.random((4000, count)), 1) % 2 == 0
    drawn = np.where(found, found.cumsum(1) / np.arange(1, count + 1), np.nan)
    precisions = np.nanmean(drawn, 1)
    assert (got == got[0]).all()
    assert abs(got[0] - precisions.mean()) < 5 * precisions.std() / 4000**0.5


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("values", [1, 2, 3])
def test_a_hit_among_equal_scores_has_its_chance_over_all_orders(rng, values, at):
    scores, right = rng.integers(0, values, (4, 6)), rng.random((4, 6)) < 0.4
    orders = list(itertools.permutations(range(6)))
    for query in range(4):
        ranked = [sorted(order, key=lambda i: -scores[query, i]) for order in orders]
        hits = [right[query, order[:at]].any() for order in ranked]
        got = hit_chances(scores.astype(float), right, [9, at])[query]
        assert got == pytest.approx([float(right[query].any()), np.mean(hits)])


def _chance(positives, others):
    """Mean average precision of random orders: McSherry and Najork's formula for one tie."""
    total = positives + others
    places = np.arange(total)
    return ((1 + places * (positives - 1) / (total - 1)) / (places + 1)).mean()


def test_a_collapsed_encoder_scores_as_chance_does():
    same, labels = np.full((120, 4), 0.5, np.float32), np.repeat([2, 0, 1], 40)
    for order in (np.arange(120), np.random.default_rng(0).permutation(120)):
        scores = dict(retrieval(same, labels[order]))
        assert scores == pytest.approx({"retrieval_map": _chance(39, 80), "top1": 39 / 119})
    assert dict(knn(same, labels)) == {"knn": pytest.approx(1 / 3)}
    zero_shots = dict(zero_shot(same, labels, same[:3]))
    assert zero_shots["zero_shot"] == zero_shots["zero_shot_per_class"] == pytest.approx(1 / 3)


def test_the_way_of_counting_changes_nothing(rng):
    row = rng.integers(-20, 20, 500).astype(np.float32)
    levels = np.sort(row[:60])
    for compared, searched in zip(
        ranks._compare(row, levels), ranks._search(row, levels), strict=True
    ):
        np.testing.assert_array_equal(compared, searched)


def test_small_blocks_and_half_precision_score_the_same(rng, monkeypatch):
    vectors, labels = _unit(rng, 50, 8).astype(np.float16), rng.integers(9, size=50)
    expected = average_precisions(vectors.astype(np.float32), labels, include_self=False)
    monkeypatch.setattr(metrics, "_SCORES", 150)
    got = average_precisions(vectors, labels, include_self=False)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_only_image_of_a_class_has_no_average_precision_without_itself():
    vectors, labels = np.eye(3, dtype=np.float32), np.array([4, 4, 9])
    assert np.isnan(average_precisions(vectors, labels, include_self=False)).tolist() == [0, 0, 1]
    assert average_precisions(vectors, labels, include_self=True)[2] == 1


def test_nearest_never_returns_the_query_itself(rng):
    vectors = _unit(rng, 20, 4)
    index, _ = nearest(vectors, vectors, 19, same=True)
    assert all(i not in row for i, row in enumerate(index))


def test_nearest_is_sorted_and_complete(rng):
    queries, gallery = _unit(rng, 3, 4), _unit(rng, 9, 4)
    index, value = nearest(queries, gallery, 9, same=False)
    np.testing.assert_array_equal(index, np.argsort(-(queries @ gallery.T), axis=1))
    assert (np.diff(value, axis=1) <= 0).all()


@given(st.integers(0, 10_000), st.integers(1, 40), st.booleans())
def test_nearest_is_a_stable_sort_of_the_gallery(seed, k, same):
    rng = np.random.default_rng(seed)
    gallery = rng.integers(-1, 2, (30, 3)).astype(np.float32)
    index, value = nearest(gallery, gallery, k, same=same)
    scores = gallery @ gallery.T
    if same:
        np.fill_diagonal(scores, -np.inf)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, 30 - same)]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(value, np.take_along_axis(scores, expected, 1))


def test_nearest_in_small_blocks_finds_the_same(rng, monkeypatch):
    queries, gallery = _unit(rng, 20, 4), _unit(rng, 30, 4)
    expected = nearest(queries, gallery, 5, same=False)[0]
    monkeypatch.setattr(metrics, "_SCORES", 100)
    np.testing.assert_array_equal(nearest(queries, gallery, 5, same=False)[0], expected)


def test_nearest_refuses_what_has_no_neighbours(rng):
    vectors = _unit(rng, 4, 2)
    with pytest.raises(InputError, match="k = 0 neighbours"):
        nearest(vectors, vectors, 0, same=True)
    vectors[1] = np.nan
    with pytest.raises(InputError, match="1 of 4 embeddings hold NaN"):
        nearest(vectors, _unit(rng, 4, 2), 1, same=False)


def test_retrieval_leaves_out_classes_of_one_image():
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    scores = dict(retrieval(vectors, np.array([0, 0, 7])))
    assert scores == {"retrieval_map": 1.0, "top1": 1.0}


def test_knn_follows_the_nearer_class_over_the_larger_one():
    gallery = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    query = np.array([[0.99, 0.14]], dtype=np.float32)
    scores = dict(knn(query, np.array([0]), gallery, np.array([0, 1, 1, 1])))
    assert scores == {"knn": 1.0}


def _slow_knn(query, gallery, labels, k, largest):
    """DINOv2's vote: softmax at 0.07 over the largest k, the first k of it, the lowest class."""
    scores = gallery @ query
    order = sorted(range(len(gallery)), key=lambda i: (-scores[i], i))[:largest]
    shares = np.exp(scores[order].astype(np.float64) / 0.07)
    votes = dict.fromkeys(sorted(set(labels.tolist())), 0.0)
    for i, share in list(zip(order, shares / shares.sum(), strict=True))[:k]:
        votes[labels[i]] += share
    return max(votes, key=lambda label: votes[label])


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_knn_equals_the_slow_reference_for_every_k(seed, classes):
    rng = np.random.default_rng(seed)
    gallery, queries = _unit(rng, 40, 3), _unit(rng, 12, 3)
    known, true = rng.integers(classes, size=40), rng.integers(classes, size=12)
    scores = dict(knn(queries, true, gallery, known, k=(1, 5, 20)))
    assert list(scores) == ["knn_1", "knn_5", "knn"]
    for name, k in zip(scores, (1, 5, 20), strict=True):
        voted = [_slow_knn(query, gallery, known, k, 20) for query in queries]
        assert scores[name] == pytest.approx(np.mean(np.array(voted) == true))


def test_of_classes_with_equal_votes_the_first_wins():
    gallery = np.eye(4, dtype=np.float32)[[0, 0, 0, 0]]
    scores = dict(knn(gallery[:1], np.array([3]), gallery, np.array([7, 3, 7, 3])))
    assert scores == {"knn": 1.0}


def test_knn_needs_no_memory_for_each_class(rng):
    """A table of votes would take 2.4 GB here."""
    labels = np.arange(300) * 10**6
    tracemalloc.start()
    scores = dict(knn(_unit(rng, 300, 4), labels, np.eye(4, dtype=np.float32), labels[:4]))
    many = np.arange(200_000)
    winners = knn_module._winners(many.reshape(10_000, 20), np.ones((10_000, 20), np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (winners == many[::20]).all()
    assert scores["knn"] < 0.1
    assert peak < 20e6


@pytest.mark.parametrize("k", [(), (0,), (5, -1)])
def test_a_vote_of_no_neighbours_is_refused(rng, k):
    with pytest.raises(InputError, match="neighbours cannot vote"):
        list(knn(_unit(rng, 4, 2), np.arange(4), k=k))
    with pytest.raises(InputError, match="1 images leave no neighbours"):
        list(knn(_unit(rng, 1, 2), np.arange(1)))


def test_label_scores_count_what_they_say():
    scores = label_scores({("a", 1), ("b", 1)}, {("a", 1), ("b", 2)}, {("a", 1), ("b", 2)})
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0.5, 0.5, 0.5)
    assert label_scores(set(), {("a", 1)}, {("a", 1)})["precision"] == 0.0
