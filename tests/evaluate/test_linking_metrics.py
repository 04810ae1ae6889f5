"""The arithmetic of linking scores, against hand-made cases and plain sets."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.evaluate.linking_data import GoldDocument, GoldMention
from openmofi.evaluate.linking_metrics import (
    Prediction,
    ambiguity_bucket,
    frequency_bucket,
    harmonic_mean,
    match_exactly,
    match_overlaps,
    precision_recall,
    share,
)

TEXT = "x" * 30


def gold(*mentions, evaluated=None):
    return GoldDocument("d", TEXT, tuple(GoldMention(*m) for m in mentions), evaluated=evaluated)


def said(*predictions):
    return [Prediction(*p) for p in predictions]


# name, gold mentions, predictions, exact (hits, false alarms, misses), overlapping
CASES = [
    ("right", [(0, 5, "Q1")], [(0, 5, "Q1")], (1, 0, 0), (1, 0, 0)),
    ("wrong id", [(0, 5, "Q1")], [(0, 5, "Q2")], (0, 1, 1), (0, 1, 1)),
    ("wrong span", [(0, 5, "Q1")], [(1, 5, "Q1")], (0, 1, 1), (1, 0, 0)),
    ("touching spans", [(0, 5, "Q1")], [(5, 9, "Q1")], (0, 1, 1), (0, 1, 1)),
    ("missed", [(0, 5, "Q1")], [], (0, 0, 1), (0, 0, 1)),
    ("invented", [], [(0, 5, "Q1")], (0, 1, 0), (0, 1, 0)),
    ("NIL is not a miss", [(0, 5, None)], [], (0, 0, 0), (0, 0, 0)),
    ("a find on NIL is a false alarm", [(0, 5, None)], [(0, 5, "Q1")], (0, 1, 0), (0, 1, 0)),
    ("a date is neither", [(0, 5, None, "", True)], [(0, 5, "Q1")], (0, 0, 0), (0, 0, 0)),
    ("optional and right", [(0, 5, "Q1", "", True)], [(0, 5, "Q1")], (0, 0, 0), (0, 0, 0)),
    ("optional and wrong", [(0, 5, "Q1", "", True)], [(0, 5, "Q2")], (0, 1, 0), (0, 1, 0)),
    ("said twice", [(0, 5, "Q1")], [(0, 5, "Q1"), (0, 5, "Q1")], (1, 0, 0), (1, 0, 0)),
    (
        "one find serves one mention",
        [(0, 4, "Q1"), (5, 9, "Q1")],
        [(0, 9, "Q1")],
        (0, 1, 2),
        (1, 0, 1),
    ),
    (
        "the best pairing counts",
        [(0, 9, "Q1"), (0, 4, "Q1")],
        [(0, 3, "Q1"), (5, 9, "Q1")],
        (0, 2, 2),
        (2, 0, 0),
    ),
]


@pytest.mark.parametrize(("name", "mentions", "predictions", "exact", "overlapping"), CASES)
def test_cases_by_hand(name, mentions, predictions, exact, overlapping):
    assert match_exactly(gold(*mentions), said(*predictions)).counts() == exact
    assert match_overlaps(gold(*mentions), said(*predictions)).counts() == overlapping


def test_predictions_outside_the_annotated_part_do_not_count():
    document = gold((10, 12, "Q1"), evaluated=(8, 20))
    predictions = said((0, 3, "Q2"), (10, 12, "Q1"), (19, 21, "Q3"))
    assert match_exactly(document, predictions).counts() == (1, 0, 0)


spans = st.tuples(st.integers(0, 14), st.integers(1, 15)).map(lambda s: (s[0], s[0] + s[1]))
ids = st.sampled_from(["Q1", "Q2", "Q3"])
mentions = st.lists(st.tuples(spans, st.one_of(st.none(), ids)), max_size=8)
predictions = st.lists(st.tuples(spans, ids), max_size=8)


def slow_reference(wanted, found):
    """Precision, recall and F1 of two sets, written from the definition."""
    right = len(wanted & found)
    precision = right / len(found) if found else 0.0
    recall = right / len(wanted) if wanted else 0.0
    mean = (precision + recall) / 2
    return precision, recall, precision * recall / mean if mean else 0.0


@given(mentions, predictions)
def test_scores_agree_with_sets(annotated, answered):
    document = gold(*((*span, i) for span, i in annotated))
    outcome = match_exactly(document, said(*((*span, i) for span, i in answered)))
    scores = precision_recall(*outcome.counts())
    wanted = {(*span, i) for span, i in annotated if i is not None}
    found = {(*span, i) for span, i in answered}
    expected = slow_reference(wanted, found)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(expected)


@given(mentions, predictions)
def test_overlap_never_scores_below_exact(annotated, answered):
    document = gold(*((*span, i) for span, i in annotated))
    answers = said(*((*span, i) for span, i in answered))
    exact, loose = match_exactly(document, answers), match_overlaps(document, answers)
    assert len(loose.hits) >= len(exact.hits)
    assert len(loose.hits) + len(loose.misses) == len(exact.hits) + len(exact.misses)
    assert len({id(p) for _, p in loose.hits}) == len(loose.hits)


def test_nothing_found_and_nothing_wanted_scores_zero():
    scores = precision_recall(0, 0, 0)
    assert (scores.precision, scores.recall, scores.f1) == (0, 0, 0)
    assert math.isnan(share(0, 0))


@pytest.mark.parametrize(
    ("sitelinks", "bucket"),
    [
        *((None, "not_in_kb"), (0, "0"), (1, "1-9"), (9, "1-9"), (10, "10-99"), (99, "10-99")),
        *((100, "100+"), (1000, "100+"), (54321, "100+")),
    ],
)
def test_frequency_buckets(sitelinks, bucket):
    assert frequency_bucket(sitelinks) == bucket


@pytest.mark.parametrize(
    ("candidates", "bucket"),
    [(0, "unknown_name"), (1, "1"), (2, "2-5"), (5, "2-5"), (6, "6-30"), (30, "6-30"), (31, "31+")],
)
def test_ambiguity_buckets(candidates, bucket):
    assert ambiguity_bucket(candidates) == bucket


def test_the_harmonic_mean_of_nothing_right_is_zero():
    assert harmonic_mean(0.0, 0.9) == 0
    assert harmonic_mean(0.25, 0.75) == pytest.approx(0.375)
