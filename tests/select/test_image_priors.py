"""What images teach about names: of 400 apples that the prior calls red, most are green."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fruit
from labelled import candidate, kept_labels, pair, write_i2e
from openmofi.cli import app
from openmofi.config import SelectSettings
from openmofi.errors import SettingsError
from openmofi.kb import KnowledgeBase
from openmofi.label.score import LEAST_TEXT, load_weights
from openmofi.link.disambiguate import probabilities
from openmofi.link.learn_priors import FLOOR, MU
from openmofi.schema import KEEP
from openmofi.select import select
from openmofi.select.blocks import label_blocks
from openmofi.select.choose import read_mentions
from openmofi.select.image_priors import learn_image_priors, replaced_prior
from openmofi.select.report import inspect
from openmofi.shards import committed_files

SETTINGS = {"threshold": 0.5, "min_images": 1, "duplicates": "keep"}


def apple(key, *, red=0.0, green=0.0):
    both = (
        candidate("red", prior=0.75, text=0.6, z=red, other=-1.0),
        candidate("green", prior=0.25, text=0.35, z=green, other=-1.0),
    )
    return pair(key, *both, image=key.encode(), caption="an apple")


def rows(count=400, seed=0):
    """Three images of four show a green apple clearly, others tell little, and some a red one."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        clear = {"green": 4.0} if number % 4 else {"green": 2.2, "red": 2.2}
        if number % 20 == 0:
            clear = {"red": 5.0}
        noise = float(rng.normal()) / 4
        z = {name: value + noise for name, value in clear.items()}
        found.append(apple(f"{number:03d}", **z))
    return found


@pytest.fixture(scope="module")
def i2e(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    written = rows()
    for number, row in enumerate(written):
        (folder / f"{row['key']}.jpg").write_bytes(fruit.photo("green", number))
    return write_i2e(folder, written[:150], written[150:])


def learn(i2e):
    kb = KnowledgeBase.open(i2e.parent / "kb")
    return learn_image_priors(label_blocks(committed_files(i2e)), kb, load_weights(), 0.58)


def chosen(i2e, name="default", **settings):
    return kept_labels(select(i2e, name=name, settings=SelectSettings(**SETTINGS, **settings)))


def test_images_teach_what_a_name_means(i2e):
    priors = learn(i2e)
    assert dict(zip(priors.table["id"].to_pylist(), priors.after.tolist(), strict=True)) == {
        "red": pytest.approx(0.1, abs=0.08),
        "green": pytest.approx(0.9, abs=0.08),
    }
    [moved] = priors.moved()
    assert (moved["name"], moved["mentions"]) == ("apple", 400)
    assert (moved["before"]["id"], moved["after"]["id"]) == ("red", "green")


def test_images_that_tell_little_follow_the_others_and_clear_ones_do_not(i2e):
    before, after = chosen(i2e), chosen(i2e, priors="images")
    unclear = [f"{n:03d}" for n in range(0, 400, 4) if n % 20]
    reds, greens = (
        [sum(labels.get(key) == [name] for key in unclear) for labels in (before, after)]
        for name in ("red", "green")
    )
    assert reds[0] > 30
    assert reds[1] == 0
    assert greens[1] > greens[0] + 30
    assert all(after[f"{n:03d}"] == ["red"] for n in range(0, 400, 20))


def test_every_label_keeps_the_prior_before_and_after(i2e):
    summary = select(i2e, settings=SelectSettings(**SETTINGS, priors="images"))
    ids = pq.read_table(summary.out / "vocabulary.parquet")["id"].to_pylist()
    for row in pq.read_table(summary.out / "keep.parquet").to_pylist():
        is_red = ids[row["classes"][0]] == "red"
        assert row["priors_before"] == pytest.approx([0.75 if is_red else 0.25])
        assert (row["priors_after"][0] < 0.3) == is_red


def test_without_the_option_there_is_no_trace(i2e):
    summary = select(i2e, settings=SelectSettings(**SETTINGS))
    assert pq.read_schema(summary.out / "keep.parquet").equals(KEEP)
    card = json.loads((summary.out / "card.json").read_text())
    assert "priors" not in card
    assert "priors" not in card["settings"]
    assert not (summary.out / "priors.parquet").exists()
    assert 'id="moved"' not in inspect(i2e).read_text()


def test_a_few_hundred_mentions_teach_nothing_and_select_says_so(tmp_path, capsys):
    i2e = write_i2e(tmp_path, rows(290))
    plain = chosen(i2e)
    app(f"select {i2e} --priors images --threshold 0.5", result_action="return_value")
    assert "taught nothing about names: there are 290 mentions" in capsys.readouterr().out
    assert chosen(i2e, priors="images") == plain


def test_neither_shards_nor_order_matter(i2e, tmp_path):
    mixed = [rows()[i] for i in np.random.default_rng(1).permutation(400)]
    other = learn(write_i2e(tmp_path, mixed[:20], mixed[20:390], mixed[390:]))
    assert other.after == pytest.approx(learn(i2e).after, abs=1e-12)
    assert other.pairs.tolist() == learn(i2e).pairs.tolist()


def test_other_orders_are_refused(i2e):
    with pytest.raises(SettingsError, match="needs --order joint, not text-first"):
        select(i2e, settings=SelectSettings(order="text-first", priors="images"))


def test_select_lists_what_moved(i2e, capsys):
    app(f"select {i2e} --priors images --threshold 0.5", result_action="return_value")
    out = capsys.readouterr().out
    assert "1 names mean something else here" in out
    assert "red (0.75)" in out


def test_inspect_shows_images_of_both_meanings(i2e):
    select(i2e, settings=SelectSettings(**SETTINGS, priors="images"))
    page = inspect(i2e).read_text(encoding="utf-8")
    section = page.split('id="moved"')[1].split("<h2")[0]
    assert "before: <b>Red Apple</b>" in section
    assert "now: <b>Green Apple</b>" in section
    assert section.count("<img") == 6


# ---- references ---------------------------------------------------------------------------------


def slow_priors(i2e, weight):
    """The module's docstring, one number after the other, until nothing changes."""
    w = load_weights()
    mentions = []
    for path in committed_files(i2e):
        found = read_mentions(path, "joint", with_names=True)
        for at in found.begins.tolist():
            texts, zs = found.text[at : at + 2].tolist(), found.clip_z[at : at + 2].tolist()
            mentions.append((texts, zs))
    start = prior = [0.75, 0.25]
    for _ in range(300):
        counts = [MU * p for p in start]
        for texts, zs in mentions:
            odds = [t / (1 - sum(texts)) for t in texts]
            for c in (0, 1):
                gain = math.log(prior[c] / max(prior)) - math.log(start[c] / max(start))
                odds[c] *= math.exp(weight * gain)
            text = [o / (1 + sum(odds)) for o in odds]
            seen = [
                math.exp(w.text * math.log(max(t, LEAST_TEXT)) + w.clip_z * (z - w.nil_z))
                for t, z in zip(text, zs, strict=True)
            ]
            for c in (0, 1):
                counts[c] += seen[c] / (1 + sum(seen))
        prior = [c / sum(counts) for c in counts]
        prior = [max(p, min(s, FLOOR)) for p, s in zip(prior, start, strict=True)]
        prior = [p / sum(prior) for p in prior]
    return {"red": prior[0], "green": prior[1]}


def test_priors_are_those_of_a_slow_reference(i2e):
    priors = learn(i2e)
    found = dict(zip(priors.table["id"].to_pylist(), priors.after.tolist(), strict=True))
    assert found == pytest.approx(slow_priors(i2e, 0.58), abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_replaced_prior_gives_what_the_linker_would_have_scored(seed):
    rng = np.random.default_rng(seed)
    item = np.array([0, 0, 0, 1, 1])
    rank, other = np.array([0, 1, 2, 0, 1]), rng.normal(size=5)
    old, new = (rng.random(5) + 0.01 for _ in range(2))

    def scores(prior):
        highest = np.array([prior[:3].max()] * 3 + [prior[3:].max()] * 2)
        return probabilities(0.58 * np.log(prior / highest) + other, rank, -2.0)[0]

    found = replaced_prior(scores(old), old, new, item, 0.58)
    assert found == pytest.approx(scores(new))
    assert replaced_prior(scores(old), old, old, item, 0.58) == pytest.approx(scores(old))


def test_a_name_that_taught_nothing_keeps_its_scores(i2e):
    priors = learn(i2e)
    text, prior = np.array([0.5, 0.3]), np.array([0.6, 0.4])
    named = [("pomme", "red"), ("pomme", "green")]
    assert priors.texts_of(named, text, prior, np.zeros(2, np.int64)) == pytest.approx(text)
    assert isinstance(priors.table, pa.Table)
