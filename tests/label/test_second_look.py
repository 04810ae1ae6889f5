"""`label --then`: where the large encoder looks, what both have seen, and that it stays calibrated.

Worlds are drawn in which the truth is known; jobs are compared with what a slow reader makes of the
labels by either encoder alone.
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import check_grad

import fruit
from openmofi.cli import app
from openmofi.config import LabelSettings, SelectSettings
from openmofi.diff import diff
from openmofi.errors import MismatchError, SettingsError
from openmofi.kb import build_kb
from openmofi.label import label, shard_labeller
from openmofi.label.joint_weights import Pairs, Weighing, fit_both, fit_weights
from openmofi.label.score import ScoreWeights, joint_score
from openmofi.label.second_look import SecondLook, read_second_look
from openmofi.label.second_look_fit import (
    SeenTwice,
    fit_fate,
    fit_second_look,
    least_value,
    midway,
    threshold_at,
)
from openmofi.refused import Refused
from openmofi.select import select
from openmofi.shards import commits, committed_files

RULE = SecondLook(ScoreWeights(0.9, 2.0, 1.1), 1.2, 2.5, 1.3, 0.7, -0.4, 0.8, 0.12)
SMALL, LARGE = 2.0, 3.0
"""How far each encoder's clip_z of what is shown lies above that of what is not."""


def _world(rng, *, mentions=4000, unshown=0.3):
    """Draws (sample, shown): mentions with 1 to 3 candidates as two encoders see them."""
    sizes = rng.integers(1, 4, mentions)
    begins = np.r_[0, np.cumsum(sizes)[:-1]]
    mention = np.repeat(np.arange(mentions), sizes)
    text = 0.95 / sizes[mention]
    first = begins + rng.integers(0, sizes)
    shown = np.zeros(len(mention), bool)
    shown[first[(rng.random(mentions) >= unshown) & (rng.random(mentions) < 0.95)]] = True
    own = rng.normal(0, 1, (len(mention), 2)) + np.outer(shown, (SMALL, LARGE))
    others = rng.normal(0, 1, (len(mention), 4, 2))
    return SeenTwice(np.arange(mentions), begins, text, own, others), shown


# ---- the rule, against loops over mentions -------------------------------------------------------


def _slow_evidence(rule, text, z):
    """Returns (log odds of the best candidate, p(another | any)) of one mention."""
    w = rule.small
    odds = [
        math.exp(w.text * math.log(max(t, 1e-6)) + w.clip_z * (v - w.nil_z))
        for t, v in zip(text, z, strict=True)
    ]
    best = max(odds)
    return math.log(best / (1 + sum(odds) - best)), (sum(odds) - best) / sum(odds)


def _slow_change(rule, text, z):
    evidence, another = _slow_evidence(rule, text, z)
    kept = 1 / (1 + math.exp(-(rule.intercept + rule.slope * evidence)))
    return 1 - kept * (1 - another) if evidence >= rule.threshold else kept


def test_changes_and_looks_are_those_of_a_loop_over_the_mentions(rng):
    sample, _ = _world(rng, mentions=200)
    z = sample.clip_z[:, 0]
    parts = [np.split(column, sample.begins[1:]) for column in (sample.text_score, z)]
    expected = [_slow_change(RULE, text, values) for text, values in zip(*parts, strict=True)]
    found = RULE.changes(sample.text_score, z, sample.begins)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    looks = RULE.looks(sample.text_score, z, sample.begins)
    assert looks.tolist() == [change >= RULE.least_change for change in expected]
    assert 0 < looks.sum() < len(looks)


def test_nobody_looks_again_at_what_was_not_seen():
    text, z = np.array([0.9, 0.5]), np.array([np.nan, 1.0])
    assert RULE.looks(text, z, np.array([0, 1])).tolist() == [False, True]
    assert RULE.looks(text[:0], z[:0], np.zeros(0, np.int64)).tolist() == []


def test_what_both_saw_is_worth_the_same_log_odds_on_the_small_encoders_scale(rng):
    small, large = rng.normal(size=(2, 50))
    both = RULE.by_small * (small - RULE.nil) + RULE.by_large * (large - RULE.nil)
    scaled = RULE.small.clip_z * (RULE.combined(small, large) - RULE.small.nil_z)
    np.testing.assert_allclose(scaled, both)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3])
def test_the_threshold_is_that_of_a_loop_over_all_values(rng, rate):
    evidence, mismatched = rng.normal(2, 2, 300), rng.normal(-1, 2, (300, 4))
    mismatched[:30, 2:] = np.nan
    another, wrong = rng.random(300) * 0.05, mismatched[~np.isnan(mismatched)]

    def estimate(t):
        kept = evidence >= t
        false = 0.4 * (wrong >= t).mean() / kept.mean() + another[kept].mean()
        return min(1, false) if kept.sum() >= 3 else 1

    rates = {t: estimate(t) for t in evidence}
    enough = [t for t in rates if rates[t] <= rate]
    expected = min(enough) if enough else min(rates, key=lambda t: (rates[t], t))
    assert threshold_at(rate, evidence, mismatched, another, 0.4) == expected


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 1.0])
def test_at_most_the_asked_share_reaches_the_least_value(rng, share):
    values = np.round(rng.random(200), 2)
    least = least_value(values, share)
    assert (values >= least).mean() <= share
    lower = values[values < least]
    assert share == 1 or (values >= lower.max()).mean() > share


def test_rounding_does_not_carry_a_value_over_the_bound(rng):
    values = rng.random(50)
    bound = midway(values, np.sort(values)[20])
    assert (values >= bound).sum() == 30
    assert ((values >= bound) == (values.astype(np.float32) >= bound)).all()
    assert midway(values, values.min()) == values.min()


def test_a_regression_is_finite_where_all_are_kept(rng):
    evidence = rng.normal(size=50)
    assert np.isfinite(fit_fate(evidence, np.ones(50, bool))).all()
    many = rng.normal(size=50_000)
    kept = rng.random(50_000) < 1 / (1 + np.exp(-(0.5 + 2 * many)))
    assert fit_fate(many, kept) == pytest.approx((0.5, 2.0), abs=0.08)


# ---- what is learnt, in drawn worlds -------------------------------------------------------------


def test_the_gradient_of_two_encoders_is_that_of_finite_differences(rng):
    sample, _ = _world(rng, mentions=60)
    pairs, _ = Pairs.of(sample.text_score, sample.clip_z, sample.clip_z_other, sample.begins)
    at = np.array([0.1, 0.4, -0.2, 0.9, -0.5])
    error = check_grad(
        lambda v: pairs.log_likelihood(v)[0].sum(), lambda v: pairs.log_likelihood(v)[1].sum(0), at
    )
    assert error < 1e-3


def test_both_encoders_weigh_as_much_as_they_know(rng):
    """The log ratio of two normal densities is gain * z - gain^2 / 2."""
    sample, _ = _world(rng, mentions=20_000)
    known = Weighing(ScoreWeights(1.0, 2.0, 1.0), 0.335, 0.0, 20_000)
    given = sample.text_score, sample.clip_z, sample.clip_z_other, sample.begins
    weights, nil = fit_both(*given, known)
    assert weights == pytest.approx([SMALL, LARGE], rel=0.1)
    shown = math.log((1 - 0.335) / 0.335 / 0.95)
    assert sum(weights) * nil == pytest.approx((SMALL**2 + LARGE**2) / 2 - shown, rel=0.1)


def test_of_few_images_the_large_encoder_sees_those_whose_labels_turn(rng):
    rule, card = fit_second_look(_world(rng, mentions=600)[0], rate=0.1, share=0.2)
    assert 0.1 < card["share"] <= 0.2
    sample, _ = _world(rng)
    text, begins = sample.text_score, sample.begins
    small, both = sample.clip_z[:, 0], rule.combined(*sample.clip_z.T)
    kept = [rule.evidence(text, z, begins)[0] for z in (small, both)]
    others = rule.combined(sample.clip_z_other[..., 0], sample.clip_z_other[..., 1])
    wrong = np.stack([rule.evidence(text, z, begins)[0] for z in others.T], axis=1)
    least = threshold_at(0.1, kept[1], wrong, rule.evidence(text, both, begins)[1], 0.335)
    turned = (kept[0] >= rule.threshold) != (kept[1] >= least)
    looks = rule.looks(text, small, begins)
    assert looks.mean() == pytest.approx(0.2, abs=0.05)
    assert turned[looks].mean() > 4 * turned[~looks].mean()
    changes = rule.changes(text, small, begins)
    assert changes[~looks].mean() == pytest.approx(turned[~looks].mean(), abs=0.03)


def _cascaded(rule, sample):
    """Returns clip_z and clip_z_other after the large encoder has looked where it has to."""
    mention = np.repeat(
        np.arange(len(sample.begins)), np.diff(np.r_[sample.begins, len(sample.text_score)])
    )

    def one(z):
        looks = rule.looks(sample.text_score, z[:, 0], sample.begins)[mention]
        return np.where(looks, rule.combined(*z.T), z[:, 0])

    others = np.stack([one(z) for z in sample.clip_z_other.swapaxes(0, 1)], axis=1)
    return one(sample.clip_z), others, mention


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_score_stays_a_probability_over_the_mixture(rng, share):
    rule, _ = fit_second_look(_world(rng, mentions=1000)[0], rate=0.05, share=share)
    sample, shown = _world(rng, mentions=20_000)
    z, others, mention = _cascaded(rule, sample)
    found = fit_weights(sample.text_score, z, others, sample.begins)
    assert found.unshown_share == pytest.approx(0.335, abs=0.02)
    score = joint_score(sample.text_score, z, mention, found.weights)
    twice = z != sample.clip_z[:, 0]
    for rows in (twice, ~twice):  # calibrated for either encoder's rows, not only on average
        for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 0.95)):
            here = rows & (score > low) & (score < high)
            assert shown[here].mean() == pytest.approx(score[here].mean(), abs=0.08)


def test_without_anything_to_learn_from_the_large_encoder_looks_at_all():
    nobody = np.full((2, 4, 2), np.nan)
    alone = SeenTwice(np.arange(2), np.arange(2), np.ones(2), np.zeros((2, 2)), nobody)
    rule, card = fit_second_look(alone, rate=0.05, share=0.2)
    assert (card["mentions"], rule.least_change) == (0, 0.0)
    assert rule.looks(np.ones(2), np.array([-9.0, 9.0]), np.arange(2)).all()


# ---- whole jobs ----------------------------------------------------------------------------------

SETTINGS = LabelSettings(background=24, batch_size=7, workers=1, then_share=0.5, then_rate=0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory, nano_dir, other_nano_dir):
    """Pairs of fruit, labelled with two encoders, and by either of them alone."""
    folder = tmp_path_factory.mktemp("world")
    build_kb(fruit.write_catalogue(folder), out=folder / "kb")
    fruit.write_pairs(folder / "in", shards=6, per_shard=20)
    (folder / "small").symlink_to(nano_dir)
    (folder / "large").symlink_to(other_nano_dir)
    run(folder, "both")
    for name in ("small", "large"):
        settings = LabelSettings(background=24, batch_size=7, workers=1)
        run(folder, f"{name}-alone", model=name, then=None, settings=settings)
    return folder


def run(folder, out, *, model="small", then="large", settings=SETTINGS, **more):
    then = None if then is None else folder / then
    given = {"kb": folder / "kb", "model": folder / model, "out": folder / out}
    return label(folder / "in", **given, then=then, settings=settings, **more)


def rows_of(i2e):
    return [row for file in committed_files(i2e) for row in pq.read_table(file).to_pylist()]


def digests(i2e):
    return {commit.shard: commit.sha256 for commit in commits(i2e)}


def _mentions(entities):
    """Returns lists of the places of each mention's candidates."""
    starts = dict.fromkeys(entity["start"] for entity in entities)
    return [[i for i, e in enumerate(entities) if e["start"] == start] for start in starts]


def _slow_row(rule, small, large):
    """Returns (clip, clip_z, clip_z_other, encoders) of each candidate of a row."""
    found = [None] * len(small)
    for places in _mentions(small):
        text = [small[i]["text_score"] for i in places]

        def value(pick, text=text, places=places):
            z, other = ([pick(row[i]) for i in places] for row in (small, large))
            if _slow_change(rule, text, z) < rule.least_change:
                return z, 1
            return [rule.combined(a, b) for a, b in zip(z, other, strict=True)], 2

        own, encoders = value(lambda entity: entity["clip_z"])
        count = len(small[places[0]]["clip_z_other"])
        others = [value(lambda entity, k=k: entity["clip_z_other"][k])[0] for k in range(count)]
        for number, i in enumerate(places):
            clip = (small if encoders == 1 else large)[i]["clip"]
            found[i] = clip, own[number], [other[number] for other in others], encoders
    return found


@pytest.mark.slow
def test_a_job_gives_what_a_slow_reader_makes_of_both_encoders_labels(world):
    rule, _ = read_second_look(world / "both")
    found, small, large = (rows_of(world / n) for n in ("both", "small-alone", "large-alone"))
    seen = set()
    for row, one, other in zip(found, small, large, strict=True):
        expected = _slow_row(rule, one["entities"], other["entities"])
        for entity, (clip, z, others, encoders) in zip(row["entities"], expected, strict=True):
            assert entity["encoders"] == encoders
            assert entity["clip"] == pytest.approx(clip, abs=1e-6)
            assert entity["clip_z"] == pytest.approx(z, rel=1e-3, abs=1e-3)
            assert entity["clip_z_other"] == pytest.approx(others, rel=1e-3, abs=1e-3)
            seen.add(encoders)
    assert seen == {1, 2}


@pytest.mark.slow
def test_images_of_the_background_are_not_looked_at_twice_by_the_large_encoder(world):
    drawn = set(np.load(world / "both" / "background.npz")["words"].tolist())
    wanted = [
        row for row in rows_of(world / "both") if 2 in {e["encoders"] for e in row["entities"]}
    ]
    new = [row for row in wanted if int.from_bytes(row["sha256"][:8], "little") not in drawn]
    assert sum(commit.looked_twice for commit in commits(world / "both")) == len(new)
    assert 0 < len(new) < len(wanted)


@pytest.mark.slow
def test_an_image_that_vanishes_before_the_second_look_is_refused(world, monkeypatch, tmp_path):
    real, calls = shard_labeller.decode, []

    def vanishing(read, row, transform):
        calls.append(row)
        return Refused("image_missing") if len(calls) == 60 else real(read, row, transform)

    monkeypatch.setattr(shard_labeller, "decode", vanishing)
    totals = run(world, tmp_path / "o", settings=SETTINGS)
    assert len(calls) > 60
    assert totals.errors == {"image_missing": 1}
    [row] = [row for row in rows_of(tmp_path / "o") if row["status"] == "error"]
    assert (row["error"], row["entities"]) == ("image_missing", [])


@pytest.mark.slow
def test_ranks_share_a_job_and_give_its_bytes(world, tmp_path):
    for rank in (1, 0):
        given = {"engine": "rank", "rank": rank, "world_size": 2}
        run(world, tmp_path / "o", settings=replace(SETTINGS, **given))
    assert digests(tmp_path / "o") == digests(world / "both")
    assert (tmp_path / "o/then.json").read_bytes() == (world / "both/then.json").read_bytes()


def _line(world, out):
    return [
        f"{world}/in", "--kb", f"{world}/kb", "--model", f"{world}/small", "--then",
        f"{world}/large", "--out", f"{out}", "--background", "24", "--batch-size", "7",
        "--then-share", "0.5", "--then-rate", "0.3", "--workers", "1",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_job_killed_at_any_moment_goes_on_to_the_same_bytes(world, tmp_path):
    rng, command = random.Random(0), [sys.executable, "-m", "openmofi", "label"]
    line, moments = [*command, *_line(world, tmp_path / "o")], ["background.npz", "then.json", 1, 3]
    for moment in moments:
        job = subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL)
        while job.poll() is None and not _reached(tmp_path / "o", moment):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.killpg(job.pid, signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL
    assert subprocess.run(line, capture_output=True).returncode == 0
    assert digests(tmp_path / "o") == digests(world / "both")


def _reached(out, moment):
    if isinstance(moment, str):
        return (out / moment).is_file()
    return len([*(out / "_done").glob("[!.]*.json")]) >= moment


@pytest.mark.slow
def test_the_counts_are_printed_as_json_and_in_words(world, tmp_path, capsys):
    app(["label", *_line(world, world / "both"), "--json"], result_action="return_value")
    found = json.loads(capsys.readouterr().out)
    assert found["looked"] == 120 > found["looked_twice"] > 0
    assert found["second_look"]["images"] == 24
    app(["label", *_line(world, world / "both")], result_action="return_value")
    assert f"second encoder looked at {found['looked_twice']} (" in capsys.readouterr().out


@pytest.mark.slow
def test_select_and_diff_take_the_labels_like_any_others(world):
    settings = SelectSettings(false_label_rate=0.4, min_images=1, duplicates="keep")
    for name in ("both", "small-alone"):
        assert select(world / name, settings=settings).kept > 0
    assert diff(world / "small-alone", world / "both").kept > 0


@pytest.mark.slow
def test_a_job_cannot_go_on_with_another_second_encoder_or_without_it(world):
    for changes in ({"then": None, "settings": LabelSettings(background=24)}, {"then": "small"}):
        with pytest.raises((MismatchError, SettingsError)):
            run(world, "both", **changes)


@pytest.mark.slow
def test_no_job_goes_on_from_the_cosines_of_two_encoders(world, tmp_path):
    with pytest.raises(MismatchError, match="was made with --then"):
        run(world, tmp_path / "o", then=None, settings=LabelSettings(), onto=world / "both")


REFUSALS = {
    "the same encoder": ({"then": "small"}, "is the encoder of --model"),
    "onto": ({"onto": "small-alone"}, "--onto cannot be combined with --then"),
    "no encoder": ({"model": None}, "--then needs an encoder; add --model"),
    "a share of nothing": (
        {"then": None, "settings": LabelSettings(then_share=0.4)},
        "--then-share needs a second encoder; add --then",
    ),
    "a rate of nothing": (
        {"then": None, "settings": LabelSettings(then_rate=0.4)},
        "--then-rate needs a second encoder; add --then",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_is_refused_in_a_sentence(name, tmp_path, nano_dir, other_nano_dir):
    given, message = REFUSALS[name]
    build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb")
    fruit.write_pairs(tmp_path / "in", shards=1)
    models = {"small": nano_dir, "large": other_nano_dir, None: None}
    chosen = {
        "model": models[given.get("model", "small")],
        "then": models[given.get("then", "large")],
    }
    rest = {"settings": given.get("settings"), "onto": given.get("onto")}
    with pytest.raises(SettingsError, match=message):
        label(tmp_path / "in", kb=tmp_path / "kb", out=tmp_path / "o", **chosen, **rest)
    assert not (tmp_path / "o").exists()
