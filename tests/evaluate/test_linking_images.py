"""Captions of which images tell what their names mean, and that `kb fit` learns from them."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelled import candidate, pair, unseen, write_i2e
from openmofi.cli import main
from openmofi.errors import InputError
from openmofi.evaluate.linking_images import meant_by_images, texts_of_images
from openmofi.label.score import LEAST_TEXT, ScoreWeights
from openmofi.select.choose import ScoredCandidates
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards


def _apples(red: float, green: float, *, text: float = 0.5, start: int = 2):
    both = (("red", red, text), ("green", green, 1 - text))
    return [candidate(id_, z=z, text=p, start=start) for id_, z, p in both]


def _crawl(tmp_path, *more):
    """Sixty images, half of them red, that teach what clip_z is worth; then more rows."""
    rows = [pair(f"k{i}", *_apples(7.0 * (i % 2), 7.0 * (i % 2 == 0))) for i in range(60)]
    return write_i2e(tmp_path, rows, list(more))


def _meant(i2e) -> dict[str, dict[tuple[int, str], float]]:
    """Returns key -> (start, id) -> probability."""
    return {
        document.key: {(m.start, m.id or ""): m.probability for m in document.mentions}
        for document in texts_of_images(i2e).documents
    }


def test_an_image_decides_where_it_shows_a_candidate_and_else_the_text_stands(tmp_path):
    more = [
        pair("red", *_apples(7.0, 0.0, text=0.02)),
        pair("neither", *_apples(0.0, 0.0, text=0.98)),
        pair("both", *_apples(7.0, 7.0, text=0.98)),
        pair("no choice", candidate("lime", z=7.0)),
        pair("not looked at", unseen("red"), unseen("green")),
    ]
    meant = _meant(_crawl(tmp_path, *more))
    assert meant["red"][2, "red"] > 0.9
    assert meant["k1"][2, "red"] > 0.9
    assert meant["k2"][2, "green"] > 0.9
    assert meant["neither"][2, "red"] == pytest.approx(0.98, abs=0.005)
    assert meant["both"][2, "red"] == pytest.approx(0.98, abs=0.01)
    assert not meant.keys() & {"no choice", "not looked at"}


def test_every_name_of_a_caption_is_judged_by_itself(tmp_path):
    two = pair("two", *_apples(7.0, 0.0, start=2), *_apples(0.0, 0.0, text=0.3, start=20))
    meant = _meant(_crawl(tmp_path, two))["two"]
    assert meant[2, "red"] > 0.9
    assert meant[20, "red"] == pytest.approx(0.3, abs=0.01)


NUMBER = st.floats(-4, 9, width=32)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1, width=32), NUMBER), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_meant_is_as_slowly_computed(mentions):
    weights = ScoreWeights(text=0.7, clip_z=1.3, nil_z=1.5)
    sizes = [len(own) for own in mentions]
    text, z = np.array([one for own in mentions for one in own], np.float32).T
    begins = np.cumsum([0, *sizes[:-1]])
    ids = pa.array([""] * len(z)).dictionary_encode()
    row = np.zeros(len(z), int)
    found = ScoredCandidates(row, ids, begins, text, z, np.full((len(z), 1), np.nan))
    expected = []
    for own in mentions:
        text_of = [max(p, LEAST_TEXT) for p, _ in own]
        odds = [p**0.7 * np.exp(1.3 * (z - 1.5)) for p, (_, z) in zip(text_of, own, strict=True)]
        shown = [one / (1 + sum(odds)) for one in odds]
        not_shown = 1 / (1 + sum(odds))
        told = zip(shown, text_of, strict=True)
        expected += [one + not_shown * p / sum(text_of) for one, p in told]
    assert meant_by_images(found, weights) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([pair("a", unseen("red"), unseen("green"))], "were looked at"),
        ([pair("a", candidate("lime", z=7.0))], "have ambiguous names"),
    ],
)
def test_labels_that_tell_nothing_are_refused(tmp_path, rows, why):
    with pytest.raises(InputError, match=why):
        texts_of_images(write_i2e(tmp_path, rows))


def test_vectors_are_not_taken_for_labels(tmp_path):
    vectors = ShardResult(pa.table({"id": ["a"]}), folder="vectors")
    shards = [Shard("s", "", "folder", 0, 0)]
    freeze_plan(tmp_path / "e", shards, {})
    run_shards(lambda: lambda shard: vectors, shards, out=tmp_path / "e")
    with pytest.raises(InputError, match="holds no labels of a finished shard"):
        texts_of_images(tmp_path / "e")


def test_kb_fit_learns_from_labels_that_nobody_annotated(tmp_path, capsys):
    words = {"red": "a apple, a round red fruit", "green": "a apple that is green"}
    rows = [
        pair(f"{shown}{i}", *_apples(*z), caption=words[shown])
        for i in range(60)
        for shown, z in (("red", (7.0, 0.0)), ("green", (0.0, 7.0)))
    ]
    i2e, out = write_i2e(tmp_path, rows), tmp_path / "weights.json"
    command = ["kb", "fit", str(i2e), "--kb", str(tmp_path / "kb"), "--out", str(out), "--json"]
    with pytest.raises(SystemExit, match="0"):
        main(command)
    found = json.loads(capsys.readouterr().out)
    assert found["mentions"] == 120
    assert found["after"] > found["before"]
