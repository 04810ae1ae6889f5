"""Captions whose images are sure what a name means: which are taken, and that `kb fit` learns."""

import json

import pyarrow as pa
import pytest

from labelled import candidate, pair, unseen, write_i2e
from openmofi.cli import main
from openmofi.errors import InputError
from openmofi.evaluate.linking_data import GoldMention
from openmofi.evaluate.linking_images import texts_of_images
from openmofi.shards import Shard, ShardResult, freeze_plan, run_shards

RED, GREEN = GoldMention(2, 7, "red", "apple"), GoldMention(2, 7, "green", "apple")


def _apples(red: float, green: float, *, text: float = 0.5, start: int = 2):
    both = (("red", red, text), ("green", green, 1 - text))
    return [candidate(id_, z=z, text=p, start=start) for id_, z, p in both]


def _crawl(tmp_path, *more):
    """Sixty images, half of them red, that teach what clip_z is worth; then more rows."""
    rows = [pair(f"k{i}", *_apples(7.0 * (i % 2), 7.0 * (i % 2 == 0))) for i in range(60)]
    return write_i2e(tmp_path, rows, list(more))


def _taken(i2e) -> dict[str, tuple[GoldMention, ...]]:
    return {document.key: document.mentions for document in texts_of_images(i2e).documents}


def test_the_image_says_what_is_meant_whatever_the_text_says(tmp_path):
    more = [
        pair("red", *_apples(7.0, 0.0, text=0.02)),
        pair("neither", *_apples(0.0, 0.0, text=0.98)),
        pair("both", *_apples(7.0, 7.0, text=0.98)),
        pair("no choice", candidate("lime", z=7.0)),
        pair("not looked at", unseen("red"), unseen("green")),
    ]
    taken = _taken(_crawl(tmp_path, *more))
    assert taken["red"] == (RED,)
    assert taken["k1"] == (RED,)
    assert taken["k2"] == (GREEN,)
    assert not taken.keys() & {"neither", "both", "no choice", "not looked at"}


def test_every_name_of_a_caption_is_judged_by_itself(tmp_path):
    two = pair("two", *_apples(7.0, 0.0, start=2), *_apples(0.0, 7.0, start=20))
    three = pair("one of two", *_apples(0.0, 0.0, start=2), *_apples(0.0, 7.0, start=20))
    taken = _taken(_crawl(tmp_path, two, three))
    later = GoldMention(20, 25, "green", "apple")
    assert taken["two"] == (RED, later)
    assert taken["one of two"] == (later,)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([pair("a", unseen("red"), unseen("green"))], "looked at"),
        ([pair("a", *_apples(0.0, 0.0))], "sure of a name"),
    ],
)
def test_labels_that_decide_nothing_are_refused(tmp_path, rows, why):
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
