"""The least score to answer at: the rate asked for holds, also where strangers come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexed import unit
from openmofi.errors import InputError, SettingsError
from openmofi.tag.abstain import TagCalibration

cases = st.lists(
    st.tuples(st.integers(0, 20), st.booleans(), st.integers(0, 20)), min_size=1, max_size=40
)


def _calibration(rows):
    score, right, unknown = zip(*rows, strict=True)
    return TagCalibration(
        np.array(score, np.float32) / 20, np.array(right), np.array(unknown, np.float32) / 20
    )


@settings(max_examples=200, deadline=None)
@given(cases, st.sampled_from([0.05, 0.2, 0.5]), st.sampled_from([0.0, 0.3]))
def test_the_threshold_is_the_least_that_keeps_the_rate(rows, rate, unknown):
    found = _calibration(rows)
    count, least = len(rows), float("inf")
    for t in sorted({*found.score.tolist(), *(found.unknown_score.tolist() if unknown else [])}):
        known = found.score >= t
        strangers = unknown * (found.unknown_score >= t).sum()
        wrong = (1 - unknown) * (known & ~found.right).sum() + strangers
        answered = (1 - unknown) * known.sum() + strangers
        if (wrong + 1) / (answered + 1) <= rate + 1e-9:
            least = min(least, t)
    assert count
    assert found.threshold(rate, unknown=unknown) == pytest.approx(least)


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_the_rate_asked_for_holds_on_other_images(rate, unknown):
    rng = np.random.default_rng(3)

    def draw(count):
        score = rng.random(count).astype(np.float32)
        strange = (0.8 * rng.random(count)).astype(np.float32)
        return TagCalibration(score, rng.random(count) < 0.5 + 0.5 * score**0.2, strange)

    least = draw(4000).threshold(rate, unknown=unknown)
    fresh = draw(100_000)
    strangers = unknown * (fresh.unknown_score >= least).sum()
    answered = fresh.score >= least
    wrong = (1 - unknown) * (answered & ~fresh.right).sum() + strangers
    assert wrong / ((1 - unknown) * answered.sum() + strangers) == pytest.approx(rate, rel=0.3)


def test_probabilities_rise_with_the_score_and_fall_with_strangers():
    rng = np.random.default_rng(4)
    score = rng.random(2000).astype(np.float32)
    found = TagCalibration(score, rng.random(2000) < score, score / 2)
    grid = np.linspace(0, 1, 30)
    sure, with_strangers = found.probability(grid), found.probability(grid, unknown=0.5)
    assert (np.diff(sure) >= 0).all()
    assert np.abs(sure - grid).max() < 0.12
    assert (with_strangers <= sure + 1e-9).all()


def test_measuring_hides_the_true_entity_to_see_what_strangers_score(rng):
    entities = unit(rng.standard_normal((5, 8)))
    found = TagCalibration.measure(entities[[0, 3, 4]], ["a", "d", "?"], entities, [*"abcde"])
    assert found.right.tolist() == [True, True, False]
    others = entities @ entities.T - 2 * np.eye(5)
    assert found.score == pytest.approx([1, 1, 1], abs=1e-5)
    assert found.unknown_score == pytest.approx([*others.max(1)[[0, 3]], 1.0], abs=1e-5)


def test_a_calibration_comes_back_from_its_file(tmp_path):
    found = _calibration([(3, True, 1), (5, False, 2)])
    found.write(tmp_path / "c.parquet")
    again = TagCalibration.read(tmp_path / "c.parquet")
    assert again.score.tolist() == found.score.tolist()
    assert again.right.tolist() == [True, False]
    (tmp_path / "c.parquet").write_bytes(b"other")
    with pytest.raises(InputError, match="is not a calibration"):
        TagCalibration.read(tmp_path / "c.parquet")


@pytest.mark.parametrize(("rate", "unknown"), [(0, 0), (1, 0), (0.1, 1), (0.1, -0.1)])
def test_impossible_shares_are_refused(rate, unknown):
    with pytest.raises(SettingsError, match="cannot be"):
        _calibration([(3, True, 1)]).threshold(rate, unknown=unknown)
