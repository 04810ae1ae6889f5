from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from collected import calibrate_several
from openmofi.select.evidence import EvidenceBlock, LabelEvidence
from openmofi.select.interval import PROBABILITY


def calibrate(observed, mismatched, **more):
    """With one mismatched image each."""
    return calibrate_several(observed, mismatched[:, None], **more)


@pytest.mark.parametrize("unshown", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("asked", [0.01, 0.05])
def test_the_rate_asked_for_is_the_rate_that_comes_out(rng, unshown, asked):
    count = 40_000
    shown = rng.random(count) > unshown
    observed = np.where(shown, rng.normal(4, 1, count), rng.normal(0, 1, count))
    found = calibrate(observed, rng.normal(0, 1, count), false_label_rate=asked)
    kept = observed >= found.threshold
    assert (~shown)[kept].mean() == pytest.approx(asked, rel=0.4)
    assert found.unshown_share == pytest.approx(unshown, rel=0.15)


def test_a_looser_rate_never_raises_the_threshold(rng):
    observed = np.concatenate([rng.normal(3, 1, 500), rng.normal(0, 1, 500)])
    mismatched = rng.normal(0, 1, 1000)
    thresholds = [
        calibrate(observed, mismatched, false_label_rate=rate).threshold
        for rate in (0.01, 0.03, 0.1, 0.3)
    ]
    assert thresholds == sorted(thresholds, reverse=True)


def test_nothing_observed_is_no_error():
    assert calibrate(np.zeros(0), np.zeros(0), false_label_rate=0.1).num_observed == 0


def test_a_rate_out_of_reach_is_said_and_not_hidden(rng):
    noise = rng.normal(0, 1, 1000)
    found = calibrate(noise, rng.normal(0, 1, 1000), false_label_rate=0.001)
    assert not found.reached
    assert 0.3 < found.estimated_false_label_rate <= 1.0


def test_pairs_that_are_not_mismatched_leave_the_null(rng):
    # three products only: a third of the other captions' images show the candidate as well
    count = 20_000
    shown, other_shown = rng.random(count) > 0.2, rng.random(count) < 1 / 3
    observed = np.where(shown, rng.normal(6, 1, count), rng.normal(0, 1, count))
    mismatched = np.where(other_shown, np.nan, rng.normal(0, 1, count))
    found = calibrate(observed, mismatched, false_label_rate=0.05)
    assert found.reached
    assert ((observed >= found.threshold) & shown).sum() > 0.99 * shown.sum()


@pytest.mark.parametrize("known", [True, False])
def test_things_that_match_by_chance_and_look_alike_move_nothing(rng, known):
    """Popular things have more evidence, and nearly no mismatched images."""
    count, shift = 40_000, 3 * (rng.random(40_000) < 0.5)
    shown = rng.random(count) > 0.3
    observed = rng.normal(0, 1, count) + 4 * shown + shift
    mismatched = rng.normal(0, 1, count) + shift
    mismatched[(shift > 0) & (rng.random(count) < 0.9)] = np.nan
    plain = ~np.isnan(mismatched)
    share = 0.3 if known else None
    found = calibrate(observed, mismatched, false_label_rate=0.05, unshown_share=share)
    kept = plain & (observed >= found.threshold)
    assert (~shown)[kept].mean() == pytest.approx(0.05, rel=0.25)


def test_evidence_of_images_that_nobody_saw_is_not_kept(rng):
    observed, mismatched = rng.normal(1, 2, 4000), rng.normal(0, 1, 4000)
    doubt, wanted = rng.random(4000) * 0.1, {"false_label_rate": 0.1}
    blind = np.r_[observed, np.full(3000, np.nan)], np.r_[mismatched, rng.normal(9, 1, 3000)]
    found = calibrate(*blind, confused=np.r_[doubt, np.full(3000, np.nan)], **wanted)
    assert found == calibrate(observed, mismatched, confused=doubt, **wanted)


def test_a_single_entity_has_no_null(rng):
    found = calibrate(rng.normal(0, 1, 50), np.full(50, np.nan), false_label_rate=0.05)
    assert not found.reached


def test_the_doubt_between_candidates_raises_the_threshold(rng):
    count = 20_000
    shown = rng.random(count) > 0.2
    observed = np.where(shown, rng.normal(4, 1, count), rng.normal(0, 1, count))
    doubt = np.where(observed < 4, 0.1, 0.0)
    sure, doubtful = (
        calibrate(observed, rng.normal(0, 1, count), false_label_rate=0.02, confused=confused)
        for confused in (None, doubt)
    )
    assert doubtful.threshold > sure.threshold
    kept = observed >= doubtful.threshold
    assert doubtful.confused_share == pytest.approx(doubt[kept].mean())
    assert doubtful.estimated_false_label_rate <= 0.02


def test_a_twentieth_that_is_surely_right_is_kept(rng):
    observed = np.r_[rng.normal(0, 1, 9500), rng.normal(12, 1, 500)]
    found = calibrate(observed, rng.normal(0, 1, 10_000), false_label_rate=0.02)
    assert found.reached
    assert (observed >= found.threshold).sum() == pytest.approx(510, abs=30)


def test_a_rate_out_of_reach_is_near_the_lowest_that_there_is(rng):
    observed, mismatched = rng.normal(0.4, 1, 3000), rng.normal(0, 1, 3000)
    known = {"unshown_share": 0.9, "false_label_rate": 1e-4}
    found = calibrate(observed, mismatched, **known)
    rates = [
        0.9 * (mismatched >= t).sum() / (observed >= t).sum()
        for t in observed
        if (observed >= t).sum() >= 30
    ]
    assert not found.reached
    assert min(rates) <= found.estimated_false_label_rate <= 1.1 * min(rates)
    assert found.threshold == min(
        t
        for t in observed
        if 0.9 * (mismatched >= t).sum() <= 1.1 * min(rates) * (observed >= t).sum()
    )


def test_a_share_of_unshown_that_is_known_is_taken(rng):
    found = calibrate(
        rng.normal(3, 1, 500), rng.normal(0, 1, 500), false_label_rate=0.1, unshown_share=0.25
    )
    assert found.unshown_share == 0.25


def test_several_mismatched_images_count_as_one(rng):
    observed = rng.normal(1, 2, 5000)
    one = rng.normal(0, 1, (5000, 1))
    same = np.c_[one, one, np.full(5000, np.nan), one]
    found = [calibrate_several(observed, z, false_label_rate=0.1) for z in (one, same)]
    assert found[0].threshold == found[1].threshold
    assert found[0].unshown_share == pytest.approx(found[1].unshown_share)


def test_the_order_of_the_choices_changes_nothing(rng):
    observed, mismatched = rng.normal(1, 2, 999), rng.normal(0, 1, (999, 3))
    doubt, image = rng.random(999) * 0.02, rng.integers(0, 500, 999)
    drawn = rng.permutation(999)
    one = calibrate_several(observed, mismatched, false_label_rate=0.1, confused=doubt, image=image)
    other = calibrate_several(
        observed[drawn],
        mismatched[drawn],
        false_label_rate=0.1,
        confused=doubt[drawn],
        image=image[drawn],
    )
    assert one.threshold == other.threshold
    np.testing.assert_allclose(list(vars(one).values()), list(vars(other).values()), rtol=1e-9)


def _drawn(rng, count, unshown=0.25, gain=4.0):
    """Returns (observed, four mismatched, whether it is shown) of a world in which all is true."""
    shown = rng.random(count) > unshown
    return rng.normal(gain * shown, 1), rng.normal(0, 1, (count, 4)), shown


@pytest.mark.parametrize("count", [100, 300, 1000])
def test_the_true_rate_lies_in_the_interval_as_often_as_is_said(rng, count):
    inside = []
    for _ in range(200):
        observed, mismatched, shown = _drawn(rng, count)
        error = (0.25 * 0.75 / count) ** 0.5
        share = {"unshown_share": 0.25 + rng.normal(0, error), "unshown_error": error}
        found = calibrate_several(observed, mismatched, false_label_rate=0.05, **share)
        wrong = (~shown)[observed >= found.threshold].mean()
        inside.append(found.low_rate <= wrong <= found.high_rate)
    assert PROBABILITY - 0.08 < np.mean(inside) <= 1


def test_more_pairs_narrow_the_interval_down_to_what_is_assumed(rng):
    widths = []
    for count in (100, 1000, 100_000):
        observed, mismatched, _ = _drawn(rng, count)
        share = {"unshown_share": 0.25, "unshown_error": 0.4 / count**0.5}
        found = calibrate_several(observed, mismatched, false_label_rate=0.05, **share)
        widths.append(found.high_rate - found.low_rate)
    assert widths[0] > 1.5 * widths[1] > 1.5 * widths[2]
    assert widths[2] == pytest.approx(2 * 1.64 * 0.3 * 0.05, rel=0.15)


def test_choices_of_one_image_tell_less_than_those_of_many(rng):
    observed, mismatched, _ = _drawn(rng, 100)
    again = np.repeat(np.arange(100), 20)
    alone, together = (
        calibrate_several(observed[again], mismatched[again], false_label_rate=0.05, image=image)
        for image in (np.arange(2000), again)
    )
    assert together.threshold == alone.threshold
    assert together.high_rate > alone.high_rate


def test_none_seen_does_not_mean_never():
    found = calibrate_several(
        np.full(30, 9.0), np.zeros((30, 4)), false_label_rate=0.05, unshown_share=0.5
    )
    assert found.estimated_false_label_rate == 0
    assert 0 <= found.low_rate < found.high_rate < 0.2
    assert "There are too few pairs" in found.doubt


def test_many_labels_have_the_interval_of_few_more(rng):
    """The exact distribution and the smooth one agree where one gives way to the other."""
    from openmofi.select import interval

    few, many = (interval._quantiles(0.03, 4e-5, interval._MANY + n) for n in (0, 1))
    np.testing.assert_allclose(few, many, rtol=0.01)


VALUES = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0])
MENTIONS = st.lists(
    st.tuples(VALUES, st.lists(VALUES, max_size=3), st.sampled_from([0.0, 0.1, 0.3])),
    min_size=1,
    max_size=40,
)


def slow_threshold(mentions, *, false_label_rate, unshown_share):
    """By the formula of calibrate.py's docstring, value by value."""
    compared = [mention for mention in mentions if mention[1]]
    rates = {}
    for t in sorted(own for own, *_ in mentions):
        kept = [mention for mention in mentions if mention[0] >= t]
        kept_compared = sum(own >= t for own, *_ in compared)
        false = sum(np.mean([z >= t for z in others]) for _, others, _ in compared)
        doubt = sum(confused for *_, confused in kept) / len(kept)
        rates[t] = min(1.0, unshown_share * false / max(kept_compared, 1) + doubt)
        if kept_compared < 0.01 * len(compared):
            rates[t] = 1.0
    asked = [t for t, rate in rates.items() if rate <= false_label_rate]
    best = [t for t, rate in rates.items() if rate <= 1.1 * min(rates.values()) + 1e-12]
    return (asked or best)[0], bool(asked), rates


@given(MENTIONS, st.sets(VALUES, max_size=4), st.integers(1, 3), st.sampled_from([0.07, 0.23, 0.6]))
def test_the_threshold_is_that_of_a_slow_reference(mentions, splits, blocks, rate):
    assume(any(others for _, others, _ in mentions))
    wanted = {"false_label_rate": rate, "unshown_share": 0.37}
    other = np.full((len(mentions), 3), np.nan)
    for row, (_, others, _) in enumerate(mentions):
        other[row, : len(others)] = others
    own, confused = (np.array([mention[i] for mention in mentions]) for i in (0, 2))
    found = calibrate_several(
        own, other, confused=confused, splits=sorted(splits), blocks=blocks, **wanted
    )
    threshold, reached, rates = slow_threshold(mentions, **wanted)
    assert (found.threshold, found.reached) == (threshold, reached)
    assert found.estimated_false_label_rate == pytest.approx(rates[threshold])
    assert found == calibrate_several(own, other, confused=confused, **wanted)


@given(MENTIONS, st.sets(VALUES, max_size=4))
def test_the_histogram_is_numpys_however_it_is_cut(mentions, splits):
    own = np.array([mention[0] for mention in mentions])
    others = np.array([z for _, known, _ in mentions for z in known])
    rows = np.full((len(mentions), 3), np.nan)
    for row, (_, known, _) in enumerate(mentions):
        rows[row, : len(known)] = known
    with TemporaryDirectory() as folder:
        evidence = LabelEvidence(Path(folder) / "evidence", sorted(splits))
        evidence.add(EvidenceBlock(own, rows, np.zeros(len(own)), np.arange(len(own))))
        found, edges = evidence.histogram, evidence.edges
    low, high = np.percentile(np.r_[own, others], (0.05, 99.95))
    np.testing.assert_allclose(edges[[0, -1]], (low, max(high, low + 1e-3)))
    for counts, values in zip(found, (own, others), strict=True):
        expected = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
        np.testing.assert_array_equal(counts, expected)
