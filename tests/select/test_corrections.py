"""Corrections in `select`, on hand-made labels: what people say holds, and what it teaches."""

import itertools
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import logsumexp

from labelled import candidate, kept_labels, pair, refusal_reasons, write_i2e
from openmofi.config import KBSettings, SelectSettings
from openmofi.corrections.answers import add_answers, answers_path, new_answer
from openmofi.diff import diff
from openmofi.kb import build_kb
from openmofi.label.joint_weights import Weighing
from openmofi.label.score import ScoreWeights
from openmofi.select import select
from openmofi.select.answer_model import AnsweredMentions, AnswerModel
from openmofi.select.selection import Selection

ORDERS = ("joint", "text-first", "caption-match")


def _apples(key, *, z=3.0, start=0, red=0.7):
    """An image whose name may mean two apples; it looks like the red one."""
    return pair(
        key,
        candidate("red", text=red, prior=red, z=z, start=start),
        candidate("green", text=0.9 - red, prior=0.9 - red, z=-1.0, start=start),
        image=key.encode(),
    )


@pytest.fixture
def i2e(tmp_path):
    rows = [_apples(f"{i:02d}") for i in range(8)]
    rows.append(pair("lime", candidate("lime", surface="lime ", z=3.0), image=b"lime"))
    return write_i2e(tmp_path, rows)


def _select(i2e, order="joint", **changes):
    threshold = {"joint": 0.5, "text-first": 1.0, "caption-match": None}[order]
    weights = i2e.parent / "weights.json"
    weights.write_text(json.dumps({"text": 1.0, "clip_z": 1.0, "nil_z": 0.0}))
    settings = {"order": order, "threshold": threshold, "min_images": 1, "weights": str(weights)}
    return select(i2e, settings=SelectSettings(**(settings | changes)))


def _say(i2e, kind, key="00", name="Apple", entity="red", **fields):
    place = {"key": key, "caption": f"apple {key}"} if key else {}
    entity = "" if kind == "not-shown" else entity
    answer = new_answer(kind, name=name, entity=entity, **(place | fields))
    add_answers(answers_path(i2e), [answer])
    return answer


@pytest.mark.parametrize("order", ORDERS)
def test_what_people_say_of_a_pair_holds_in_every_order(i2e, order):
    before = kept_labels(_select(i2e, order))
    assert all(before[f"{i:02d}"] == ["red"] for i in range(8))
    _say(i2e, "is", "00", entity="green")
    _say(i2e, "is", "01", entity="plum")  # which the caption does not offer
    _say(i2e, "not-shown", "02")
    _say(i2e, "right", "03")
    summary = _select(i2e, order)
    found = kept_labels(summary)
    assert (found["00"], found["01"], found["03"]) == (["green"], ["plum"], ["red"])
    assert refusal_reasons(summary) == {"02": "corrected"}
    assert found["07"] == ["red"]


@pytest.mark.parametrize("order", ORDERS)
def test_a_label_that_is_wrong_goes_for_all_names_of_the_pair(tmp_path, order):
    row = pair(
        "00",
        *(candidate("red", z=3.0, start=at) for at in (0, 8)),
        image=b"0",
        caption="apple x apple",
    )
    i2e = write_i2e(tmp_path, [row, _apples("01")])
    _say(i2e, "wrong", "00", caption="apple x apple")
    summary = _select(i2e, order)
    assert kept_labels(summary) == {"01": ["red"]}
    assert refusal_reasons(summary) == {"00": "corrected"}


def test_right_is_kept_below_the_threshold_and_without_a_look(tmp_path):
    rows = [_apples("00", z=-9.0), _apples("01", z=None), _apples("02")]
    for one in rows[1]["entities"]:
        one["clip_z"] = None
    i2e = write_i2e(tmp_path, rows)
    assert kept_labels(_select(i2e)).keys() == {"02"}
    _say(i2e, "right", "00")
    _say(i2e, "right", "01")
    found = kept_labels(_select(i2e, duplicates="keep"))
    assert found == {"00": ["red"], "01": ["red"], "02": ["red"]}


@pytest.mark.parametrize("order", ORDERS)
def test_rules_are_about_a_name_wherever_it_stands(i2e, order):
    rule = _say(i2e, "never", "", entity="red")
    found = kept_labels(_select(i2e, order, threshold=None))
    assert "red" not in itertools.chain(*found.values())
    assert found["lime"] == ["lime"]  # the name of another
    add_answers(answers_path(i2e), [new_answer("undo", undoes=rule.id)])
    _say(i2e, "always", "", entity="green")
    rows = Selection(i2e, _select(i2e, order, threshold=None).out.name)
    ids = rows.vocabulary["id"].to_pylist()
    assert "red" not in ids


def test_without_corrections_everything_is_as_if_nobody_had_said_a_thing(i2e):
    card = _select(i2e).out / "card.json"
    before = json.loads(card.read_text())
    _say(i2e, "not-shown")
    ignored = json.loads((_select(i2e, corrections=False).out / "card.json").read_text())
    assert ignored.pop("settings") == before.pop("settings") | {"corrections": False}
    assert ignored == before
    assert "corrections" not in before
    assert json.loads((_select(i2e).out / "card.json").read_text())["corrections"]["answers"] == 1


def test_answers_outlive_relabelling_in_other_shards(tmp_path):
    rows = [_apples(f"{i:02d}") for i in range(6)]
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
    old = write_i2e(tmp_path / "one", rows)
    _say(old, "is", "04", entity="green")
    for number, row in enumerate(rows):
        row["shard"] = f"repacked-{number % 2}"
    new = write_i2e(tmp_path / "two", rows[::2], rows[1::2])
    shutil.copy(answers_path(old), answers_path(new))
    assert kept_labels(_select(new))["04"] == ["green"]


def test_answers_about_entities_that_are_gone_are_counted(i2e):
    _say(i2e, "is", entity="banana")
    _say(i2e, "wrong", "01", entity="banana")
    summary = _select(i2e)
    about = json.loads((summary.out / "card.json").read_text())["corrections"]
    assert about["of_unknown_entities"] == 2
    assert kept_labels(summary)["01"] == ["red"]


def test_memory_and_blocks_change_nothing(i2e):
    _say(i2e, "is", "00", entity="green")
    _say(i2e, "not-shown", "02")
    tables = []
    for memory in (0.7, 4.0):
        out = _select(i2e, memory=memory).out
        names = ("keep.parquet", "refused.parquet", "shifts.parquet")
        tables.append([pq.read_table(out / name) for name in names])
    assert tables[0] == tables[1]


def test_what_is_said_of_some_moves_those_alike(tmp_path):
    rows = [_apples(f"{i:02d}", z=1.0) for i in range(12)]
    rows += [pair(f"l{i}", candidate("lime", surface="lime ", z=1.0), image=b"l%d" % i)
             for i in range(3)]  # fmt: skip
    i2e = write_i2e(tmp_path, rows)
    before = _select(i2e, threshold=0.6)
    assert len(kept_labels(before)) == 15
    scores = _scores(before)
    for i in range(4):
        _say(i2e, "not-shown", f"{i:02d}")
    after = _select(i2e, threshold=0.6)
    found = _scores(after)
    assert not any(key in found for key in ("05", "06"))  # nobody was asked about these
    assert all(found[f"l{i}"] == scores[f"l{i}"] for i in range(3))
    # The page shows the scores that the selection went by.
    selection = Selection(i2e, "default")
    [row] = [r for r in selection.refused(range(12)) if r["key"] == "05"]
    assert sum(one["score"] for one in row["entities"]) < 0.6


def _scores(summary):
    rows = pq.read_table(summary.out / "keep.parquet").to_pylist()
    return {row["key"]: row["scores"] for row in rows}


def test_diff_names_corrections_as_the_cause(i2e):
    _select(i2e)
    select_name = i2e / "select"
    shutil.copytree(select_name / "default", select_name / "before")
    _say(i2e, "is", "00", entity="green")
    _say(i2e, "not-shown", "01")
    _select(i2e)
    found = diff(select_name / "before", select_name / "default")
    assert {cause for cause, counts in found.causes.items() if sum(counts.values())} == {
        "correction"
    }


def _mentions(rng, count=60):
    """Answers about mentions of a few names with one to three candidates each."""
    sizes = rng.integers(1, 4, count)
    begins = np.cumsum(sizes) - sizes
    names = rng.integers(0, 5, count).astype(str).astype(object)
    entity = np.concatenate([np.arange(size).astype(str) for size in sizes]).astype(object)
    kept, nil = np.zeros(sizes.sum(), bool), np.zeros(count, bool)
    for mention in range(count):
        what = rng.integers(0, 3)
        if what == 0:
            nil[mention] = True
        elif what == 1:
            kept[begins[mention] + rng.integers(sizes[mention])] = True
        else:  # one of them is wrong
            nil[mention] = True
            kept[begins[mention] : begins[mention] + sizes[mention]] = True
            kept[begins[mention]] = False
    log_text = np.log(rng.uniform(0.05, 0.9, len(kept)))
    z = rng.normal(1.0, 1.0, len(kept))
    return AnsweredMentions(begins, np.repeat(names, sizes), entity, log_text, z, kept, nil)


def _slow_loss(answered, weights, common, names, pairs):
    """The same, mention by mention and candidate by candidate, from the definition."""
    total = 0.0
    ends = [*answered.begins[1:], len(answered.name)]
    for mention, (begin, end) in enumerate(zip(answered.begins, ends, strict=True)):
        logits, left = [0.0], [0.0] if answered.nil_kept[mention] else []
        for i in range(begin, end):
            name, entity = answered.name[i], answered.entity[i]
            logit = weights.text * answered.log_text[i]
            logit += weights.clip_z * (answered.clip_z[i] - weights.nil_z)
            logit += common + names[name] + pairs[name, entity]
            logits.append(logit)
            if answered.kept[i]:
                left.append(logit)
        total += logsumexp(logits) - logsumexp(left)
    total += 0.5 * (common / 0.5) ** 2
    return total + 0.5 * sum(v**2 for v in (*names.values(), *pairs.values()))


def test_the_model_of_answers_is_the_one_that_is_described():
    rng = np.random.default_rng(0)
    answered = _mentions(rng)
    weights = ScoreWeights(0.8, 2.0, 0.7)
    model = AnswerModel(answered, Weighing(weights, 0.3, 0.0, 0))
    fit = model.fit()
    own, common, names, pairs = model.parts(fit.x)
    assert own == pytest.approx([np.log(0.8), np.log(2.0), 0.7])  # given weights stay
    assert fit.fun == pytest.approx(_slow_loss(answered, weights, common, names, pairs), rel=1e-9)
    for _ in range(20):  # no other values are more probable
        moved = fit.x + np.r_[0, 0, 0, rng.normal(0, 0.1, len(fit.x) - 3)]
        _, a, u, b = model.parts(moved)
        assert _slow_loss(answered, weights, a, u, b) > fit.fun
    _, slope = model.loss(moved)
    steps = 1e-6 * np.eye(len(moved))
    slow = [(model.loss(moved + s)[0] - model.loss(moved - s)[0]) / 2e-6 for s in steps]
    assert slope[3:] == pytest.approx(slow[3:], abs=1e-4)


def test_answers_that_agree_with_the_scores_teach_little():
    rng = np.random.default_rng(1)
    weights = ScoreWeights(1.0, 1.0, 0.0)
    count = 400
    z = rng.normal(0, 2, count)
    right = rng.random(count) < 1 / (1 + np.exp(-z))
    name = rng.integers(0, 40, count).astype(str).astype(object)
    answered = AnsweredMentions(np.arange(count), name, name, np.zeros(count), z, right, ~right)
    model = AnswerModel(answered, Weighing(weights, 0.3, 0.0, 0))
    fit = model.fit()
    _, common, names, pairs = model.parts(fit.x)
    assert abs(common) < 2.5 * model.error_of_common(fit)
    assert np.std([*names.values(), *pairs.values()]) < 0.35


def test_weights_fitted_before_give_the_same_selection(tmp_path):
    rng = np.random.default_rng(0)
    rows = [_apples(f"{i:03d}", z=float(rng.normal(1.5, 1))) for i in range(80)]
    i2e = write_i2e(tmp_path, rows)
    _say(i2e, "not-shown", "003")
    settings = SelectSettings(false_label_rate=0.2, min_images=1)
    first = select(i2e, settings=settings).out
    card = json.loads((first / "card.json").read_text())
    fit = Weighing.restored(card["fit"])
    again = select(i2e, name="again", settings=settings, fit=fit).out
    assert json.loads((again / "card.json").read_text()) == card
    for name in ("keep.parquet", "refused.parquet", "shifts.parquet"):
        assert pq.read_table(again / name) == pq.read_table(first / name)
    assert card["fit"]["weights"] != card["weights"]  # which answers moved


def test_the_later_answer_counts_however_the_pair_was_told(i2e):
    _say(i2e, "wrong", caption="what it was called before")
    _say(i2e, "right")
    _say(i2e, "is", entity="green", caption="what it was called before")
    assert kept_labels(_select(i2e))["00"] == ["green"]


def test_an_id_that_was_redirected_means_the_entity_of_today(tmp_path):
    rows = [_apples(f"{i:02d}") for i in range(3)]
    i2e = write_i2e(tmp_path, rows)
    moved = tmp_path / "moved.tsv"
    moved.write_text("old-red\tred\nold-green\tgreen\n")
    settings = KBSettings(redirects=str(moved))
    build_kb(tmp_path / "fruit.csv", out=tmp_path / "kb", settings=settings)
    _say(i2e, "right", "00", entity="old-red")
    _say(i2e, "is", "01", entity="old-green")
    _say(i2e, "wrong", "02", entity="old-red")
    summary = _select(i2e)
    found = kept_labels(summary)
    assert (found["00"], found["01"]) == (["red"], ["green"])
    assert "red" not in found.get("02", [])
    about = json.loads((summary.out / "card.json").read_text())["corrections"]
    assert about["of_unknown_entities"] == 0
