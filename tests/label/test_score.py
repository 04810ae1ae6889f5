import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openmofi.label.background import Background
from openmofi.label.score import LEAST_TEXT, ScoreWeights, joint_score, load_weights

WEIGHTS = ScoreWeights(text=0.5, clip_z=1.0, nil_z=2.0)


def _slow(text_score, clip_z, mention, weights):
    scores = []
    for i, m in enumerate(mention):
        group = [j for j, other in enumerate(mention) if other == m]
        odds = {
            j: max(text_score[j], LEAST_TEXT) ** weights.text * math.exp(weights.clip_z * clip_z[j])
            for j in group
        }
        scores.append(odds[i] / (sum(odds.values()) + math.exp(weights.clip_z * weights.nil_z)))
    return scores


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.integers(0, 10_000))
def test_joint_score_equals_the_slow_reference(sizes, seed):
    rng = np.random.default_rng(seed)
    mention = np.repeat(np.arange(len(sizes)), sizes)
    text_score, clip_z = rng.random(len(mention)), rng.normal(size=len(mention))
    got = joint_score(text_score, clip_z, mention, WEIGHTS)
    np.testing.assert_allclose(got, _slow(text_score, clip_z, mention, WEIGHTS), rtol=1e-4)


def test_the_image_overrules_a_more_popular_candidate():
    # Georgia the country is three times as popular; the image shows the state
    scores = joint_score(np.array([0.75, 0.25]), np.array([-0.5, 4.0]), np.zeros(2, int), WEIGHTS)
    assert scores[1] > 0.75 > scores[0]


def test_an_image_of_neither_leaves_the_mass_to_nil():
    scores = joint_score(np.array([0.9, 0.1]), np.array([-0.5, 0.0]), np.zeros(2, int), WEIGHTS)
    assert scores.sum() < 0.3


def test_what_is_not_known_of_a_candidate_is_not_known_of_its_mention():
    scores = joint_score(
        np.array([0.5, 0.5, 1.0]), np.array([np.nan, 1.0, 1.0]), np.array([0, 0, 1]), WEIGHTS
    )
    assert np.isnan(scores).tolist() == [True, True, False]


def test_no_candidates_give_no_scores():
    empty = np.zeros(0)
    assert len(joint_score(empty, empty, np.zeros(0, int), WEIGHTS)) == 0


def test_background_leaves_out_images_that_offer_the_entity():
    images = np.eye(4, dtype=np.float32).repeat(10, axis=0)
    offered = tuple(frozenset({"a"} if i < 10 else {"b"}) for i in range(40))
    moments = Background(images, offered, np.zeros(40, np.uint64)).moments(
        np.eye(4, dtype=np.float32)[:2], ["a", "z"]
    )
    assert moments[0] == pytest.approx([0.0, 0.0], abs=1e-5)  # its own ten images left out
    assert moments[1][0] == pytest.approx(0.25)  # nobody offers it: all are background


def test_the_shipped_weights_load():
    assert load_weights().clip_z > 0
