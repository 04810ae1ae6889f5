"""Weights fitted without labels, against worlds in which the truth is drawn from known ones."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from openmofi.label.joint_weights import fit_weights
from openmofi.label.score import ScoreWeights, joint_score, load_weights, log_sum
from openmofi.select.choose import ScoredCandidates, judge

NUM_OTHERS = 3


def _world(rng, *, mentions=8000, unshown=0.3, gain=4.0):
    """Draws (text score, clip_z, clip_z_other, begins, shown) of mentions with 1 to 3 candidates.

    The shown candidate follows the text's probability; its clip_z is N(gain, 1), others' N(0, 1).
    """
    sizes = rng.integers(1, 4, mentions)
    begins = np.r_[0, np.cumsum(sizes)[:-1]]
    mention = np.repeat(np.arange(mentions), sizes)
    weight = rng.gamma(1.0, size=len(mention))
    text = 0.95 * weight / np.add.reduceat(weight, begins)[mention]
    cumulative = np.cumsum(text) - (np.cumsum(text) - text)[begins][mention]
    draw = rng.random(mentions) * 0.95
    first = np.add.reduceat((cumulative < draw[mention]).astype(int), begins)
    shown = np.zeros(len(mention), bool)
    is_shown = rng.random(mentions) >= unshown
    shown[(begins + np.minimum(first, sizes - 1))[is_shown]] = True
    z, *others = rng.normal(0, 1, (1 + NUM_OTHERS, len(mention)))
    return text, z + gain * shown, np.stack(others, axis=1), begins, shown, mention


@pytest.mark.parametrize("unshown", [0.1, 0.3, 0.6])
def test_the_share_of_unshown_mentions_is_found(rng, unshown):
    text, z, other, begins, _, _ = _world(rng, unshown=unshown)
    found = fit_weights(text, z, other, begins)
    assert found.unshown_share == pytest.approx(unshown, rel=0.15)
    assert found.num_mentions == 8000


@pytest.mark.parametrize("gain", [2.0, 4.0])
def test_the_score_is_the_probability_that_the_candidate_is_shown(rng, gain):
    text, z, other, begins, shown, mention = _world(rng, gain=gain)
    weights = fit_weights(text, z, other, begins).weights
    score = joint_score(text, z, mention, weights)
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95)):
        here = (score > low) & (score < high)
        assert shown[here].mean() == pytest.approx(score[here].mean(), abs=0.08)


def test_a_better_encoder_gets_more_weight(rng):
    weak, strong = (_world(rng, gain=gain)[:4] for gain in (1.5, 5.0))
    assert fit_weights(*strong).weights.clip_z > 2 * fit_weights(*weak).weights.clip_z


def test_mentions_that_match_by_chance_are_left_out(rng):
    text, z, other, begins, _, mention = _world(rng)
    some = rng.random(len(begins)) < 0.3
    other = np.where(some[mention, None], np.nan, other)
    found = fit_weights(text, z, other, begins)
    assert found.unshown_share == pytest.approx(0.3, rel=0.15)


@pytest.mark.parametrize("popular", [0.3, 0.9])
def test_popular_mentions_that_match_by_chance_move_nothing(rng, popular):
    """The true weights are log p(text), the densities' ratio, and the odds of being shown."""
    text, z, other, begins, _, mention = _world(rng, mentions=20_000, unshown=0.35)
    alone = np.diff(np.r_[begins, len(text)]) == 1  # one candidate: what everybody speaks of
    by_chance = rng.random(len(begins)) < np.where(alone, popular, 0.05)
    found = fit_weights(text, z, np.where(by_chance[mention, None], np.nan, other), begins)
    assert found.weights.nil_z == pytest.approx(4 / 2 - np.log(0.65 / (0.35 * 0.95)) / 4, abs=0.1)
    assert found.weights.text == pytest.approx(1, abs=0.2)
    assert found.unshown_share == pytest.approx(0.35, abs=0.02)
    assert found.num_mentions == (~by_chance).sum()


def test_mentions_at_whose_image_nobody_looked_count_on_neither_side(rng):
    text, z, other, begins, _, mention = _world(rng)
    unseen = (rng.random(len(begins)) < 0.4)[mention]
    found = fit_weights(text, np.where(unseen, np.nan, z), other, begins)
    expected = fit_weights(text, z, np.where(unseen[:, None], np.nan, other), begins)
    assert found == expected
    assert found.num_mentions < 8000


def test_where_there_is_nothing_to_learn_from_the_weights_are_the_shipped_ones(rng):
    text, z, other, begins, *_ = _world(rng, mentions=50)
    for given in ((z, np.full_like(other, np.nan)), (np.full_like(z, np.nan), other)):
        found = fit_weights(text, *given, begins)
        assert (found.weights, found.unshown_share, found.num_mentions) == (load_weights(), None, 0)
    empty = np.zeros(0), np.zeros(0), np.zeros((0, 4)), np.zeros(0, int)
    assert fit_weights(*empty).weights == load_weights()


def _distance(found):
    """From the shipped weights, in the units of the prior."""
    shipped = load_weights()
    ratios = np.log([found.text / shipped.text, found.clip_z / shipped.clip_z])
    return np.hypot(np.hypot(*ratios), found.nil_z - shipped.nil_z)


@pytest.mark.slow
@pytest.mark.parametrize("gain", [1.5, 4.0])
def test_the_more_there_is_to_learn_from_the_further_the_weights_go(rng, gain):
    world = _world(rng, mentions=20_000, gain=gain)
    text, z, other, begins, *_ = world
    moved = []
    for count in (3, 100, 20_000):
        end = np.r_[begins, len(text)][count]
        part = text[:end], z[:end], other[:end], begins[:count]
        moved.append(_distance(fit_weights(*part).weights))
    assert moved[0] < 0.25
    assert moved[0] < moved[1] < moved[2]


def test_of_many_mentions_the_weights_are_the_most_likely_ones(rng):
    world = _world(rng, mentions=20_000, gain=2.0)[:4]
    found, free = fit_weights(*world), fit_weights(*world, prior=0.0)
    assert _distance(found.weights) > 0.3
    for name in ("text", "clip_z", "nil_z"):
        assert getattr(found.weights, name) == pytest.approx(getattr(free.weights, name), rel=0.03)
    assert found.unshown_share == pytest.approx(free.unshown_share, abs=0.005)


def test_a_strong_prior_gives_the_shipped_weights(rng):
    found = fit_weights(*_world(rng, mentions=500)[:4], prior=1e9)
    assert _distance(found.weights) < 1e-4


def _slow_loss(values, text, z, other, begins, prior):
    """Mention by mention, from the formulas of weigh.py's docstring."""
    shipped, total = load_weights(), 0.0
    log_text, log_clip, nil_z, log_odds = values
    pi = 1 / (1 + math.exp(-log_odds))
    for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
        kinds = [(True, z[begin:end], 1.0)]
        known = [k for k in range(other.shape[1]) if not math.isnan(other[begin, k])]
        kinds += [(False, other[begin:end, k], 1 / len(known)) for k in known]
        for is_own, own_z, weight in kinds:
            odds = sum(
                t ** math.exp(log_text) * math.exp(math.exp(log_clip) * (v - nil_z))
                for t, v in zip(text[begin:end], own_z, strict=True)
            )
            ratio = pi * (1 + odds)
            total -= weight * math.log((ratio if is_own else 1) / (1 + ratio))
    away = (log_text - math.log(shipped.text), log_clip - math.log(shipped.clip_z))
    away += (nil_z - shipped.nil_z,)
    return total + prior / 2 * sum(a * a for a in away) + log_odds**2 / 8


def test_the_fit_is_where_the_slow_reference_is_least(rng):
    text, z, other, begins, *_ = _world(rng, mentions=60)
    other[begins[5] : begins[6], 1] = np.nan
    found = fit_weights(text, z, other, begins)
    weights, share = found.weights, found.unshown_share
    at = [math.log(weights.text), math.log(weights.clip_z), weights.nil_z]
    at.append(math.log(share / (1 - share)))
    best = _slow_loss(at, text, z, other, begins, 10)
    for step in np.r_[np.eye(4), -np.eye(4)] * 1e-3:
        assert _slow_loss(np.array(at) + step, text, z, other, begins, 10) > best
    slow = minimize(_slow_loss, at, (text, z, other, begins, 10), method="Nelder-Mead")
    np.testing.assert_allclose(slow.x, at, atol=2e-3)


def test_the_order_of_the_mentions_changes_nothing(rng):
    text, z, other, begins, _, mention = _world(rng, mentions=300)
    drawn = rng.permutation(300)
    index = np.concatenate([np.flatnonzero(mention == m) for m in drawn])
    sizes = np.bincount(mention)[drawn]
    found = fit_weights(text, z, other, begins)
    again = fit_weights(text[index], z[index], other[index], np.cumsum(sizes) - sizes)
    np.testing.assert_allclose(
        [*vars(again.weights).values(), again.unshown_share, again.unshown_error],
        [*vars(found.weights).values(), found.unshown_share, found.unshown_error],
        rtol=1e-6,
    )


def test_the_error_of_the_share_is_what_it_varies_by(rng):
    found = [fit_weights(*_world(rng, mentions=300)[:4]) for _ in range(60)]
    spread = np.std([one.unshown_share for one in found])
    assert 0.6 < np.mean([one.unshown_error for one in found]) / spread < 1.6


def test_the_verdict_is_that_of_the_joint_score(rng):
    text, z, other, begins, _, mention = _world(rng, mentions=300)
    weights = ScoreWeights(text=0.8, clip_z=2.0, nil_z=1.5)
    found = judge(ScoredCandidates(mention, None, begins, text, z, other), z, weights)
    score = joint_score(text, z, mention, weights)
    whole = np.add.reduceat(score, begins)
    np.testing.assert_allclose(found.score, np.maximum.reduceat(score, begins), rtol=1e-4)
    np.testing.assert_allclose(found.score, 1 / (1 + np.exp(-found.evidence)), rtol=1e-6)
    np.testing.assert_allclose(found.confused, 1 - found.score / whole, atol=1e-5)


def test_the_log_of_sums_is_stable(rng):
    logits = np.array([1000.0, 1000.0, -np.inf, -1000.0])
    found = log_sum(logits, np.array([0, 2, 3]))
    assert found.tolist() == [1000 + np.log(2), -np.inf, -1000.0]
