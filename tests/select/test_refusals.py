"""Each reason for refusing an image, by its story; the files add up whatever is asked for."""

import json
import shutil
from dataclasses import asdict
from functools import partial

import pyarrow.parquet as pq
import pytest

import fruit
from labelled import (
    candidate,
    kept_labels,
    pair,
    refusal_reasons,
    select_by_text,
    unseen,
    write_i2e,
)
from openmofi.errors import InputError, SettingsError

TYPED = """id,name,description,type,subclass_of
red,Red Apple,a round red fruit,apple,
green,Green Apple,a round green fruit,apple,
lime,Lime,a small green citrus,citrus,
plum,Plum,a small purple fruit,stone fruit,
"""


@pytest.fixture
def i2e(tmp_path):
    return partial(write_i2e, tmp_path)


def red(key, **more):
    return pair(key, candidate("red", z=3.0, text=more.pop("score", 0.5)), **more)


# ---- text ------------------------------------------------------------------------------------


def test_images_full_of_text_are_refused(i2e):
    rows = [red("clean", text=0.0), red("poster", text=0.6), red("logo", text=0.2), red("unseen")]
    summary = select_by_text(i2e(rows), max_text_area=0.2)
    assert refusal_reasons(summary) == {"poster": "text_in_picture"}


def test_a_limit_on_text_that_nobody_measured_says_what_to_type(i2e):
    with pytest.raises(InputError, match="--text-regions"):
        select_by_text(i2e([red("a")]), max_text_area=0.1)


# ---- duplicates ------------------------------------------------------------------------------


def test_of_equal_bytes_the_surest_label_stays(i2e):
    rows = [red("a", image=b"x", score=0.4), red("b", image=b"x", score=0.9)]
    summary = select_by_text(i2e(rows, [red("c", image=b"x", score=0.8), red("d", image=b"y")]))
    assert refusal_reasons(summary) == {"a": "duplicate_exact", "c": "duplicate_exact"}


def test_of_images_that_look_the_same_the_surest_label_stays(i2e):
    rows = [red("a", phash=0b0), red("b", phash=0b11, score=0.9), red("c", phash=0b11111)]
    assert refusal_reasons(select_by_text(i2e(rows), duplicate_bits=2)) == {"a": "duplicate_near"}
    assert refusal_reasons(select_by_text(i2e(rows), duplicate_bits=1)) == {}


@pytest.mark.parametrize(("kind", "refused"), [("keep", 0), ("exact", 1), ("near", 2)])
def test_how_much_alike_is_a_duplicate_can_be_chosen(i2e, kind, refused):
    rows = [red("a", image=b"x", phash=1), red("b", image=b"x", phash=1), red("c", phash=3)]
    assert len(refusal_reasons(select_by_text(i2e(rows), duplicates=kind))) == refused


def test_images_without_hashes_are_nobodys_duplicates(i2e):
    assert refusal_reasons(select_by_text(i2e([red("a"), red("b"), red("c", phash=0)]))) == {}


def test_no_image_gives_way_to_a_refused_one(i2e):
    surer = pair("surer", candidate("red", z=-3.0, text=0.9), image=b"x", phash=1)
    summary = select_by_text(i2e([surer, red("kept", image=b"x", phash=1)]))
    assert refusal_reasons(summary) == {"surer": "picture_disagrees"}


def test_images_are_counted_for_an_entity_without_their_duplicates(i2e):
    rows = [red("a", phash=1), red("b", phash=1), red("c", phash=1 << 20 | 1 << 30 | 1 << 40)]
    limes = [pair(str(i), candidate("lime", z=3.0)) for i in range(3)]
    summary = select_by_text(i2e(rows + limes), min_images=3)
    assert summary.refused == {"duplicate_near": 1, "entity_too_rare": 2}


def test_what_a_duplicate_repeats_is_written_down(i2e):
    rows = [red("x", image=b"1", phash=8, score=0.3), red("y", image=b"1", phash=8, score=0.4)]
    summary = select_by_text(i2e(rows, [red("z", image=b"2", phash=9, score=0.9)]))
    found = pq.read_table(summary.out / "duplicates.parquet").to_pylist()
    repeated = {row["key"]: (row["reason"], row["of_key"], row["bits"]) for row in found}
    assert repeated == {"x": ("duplicate_exact", "z", 0), "y": ("duplicate_near", "z", 1)}
    assert [row["of_path"] for row in found] == ["z.jpg", "z.jpg"]


# ---- images of an evaluation ---------------------------------------------------------------


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / "benchmark"
    folder.mkdir()
    (folder / "q.jpg").write_bytes(fruit.photo("red", 5))
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_images_of_a_benchmark_are_refused(i2e, benchmark):
    rows = [red("leak", image=fruit.photo("red", 5)), red("other", image=b"other")]
    summary = select_by_text(i2e(rows), exclude=(str(benchmark),))
    assert refusal_reasons(summary) == {"leak": "evaluation_duplicate"}
    assert summary.unreadable_excluded == 1
    [row] = pq.read_table(summary.out / "duplicates.parquet").to_pylist()
    assert (row["of_root"], row["of_path"]) == (str(benchmark), "q.jpg")


def test_a_leak_does_not_take_its_own_duplicates_place(i2e, benchmark):
    leak = fruit.photo("red", 5)
    rows = [red("leak", image=leak, phash=1 << 9, score=0.9), red("like", phash=1 << 9 | 1)]
    assert refusal_reasons(select_by_text(i2e(rows), exclude=(str(benchmark),))) == {
        "leak": "evaluation_duplicate"
    }


def test_a_benchmark_without_a_readable_image_is_a_mistake(i2e, benchmark):
    (benchmark / "q.jpg").unlink()
    with pytest.raises(InputError, match="holds no readable image"):
        select_by_text(i2e([red("a")]), exclude=(str(benchmark),))


# ---- types -----------------------------------------------------------------------------------


def test_entities_of_a_denied_type_are_refused(i2e):
    both = pair("both", candidate("red", z=3.0), candidate("plum", z=3.0, start=9))
    rows = [red("a"), pair("b", candidate("lime", z=3.0)), both]
    summary = select_by_text(i2e(rows, catalogue=TYPED), deny_types=("apple",))
    assert refusal_reasons(summary) == {"a": "type_denied"}
    assert kept_labels(summary) == {"b": ["lime"], "both": ["plum"]}


def test_a_denied_type_that_nobody_has_is_a_mistake(i2e):
    with pytest.raises(InputError, match="has the type 'aple'"):
        select_by_text(i2e([red("a")], catalogue=TYPED), deny_types=("aple",))


# ---- how many of each ------------------------------------------------------------------------


def _drawn(key):
    return red(key, image=key.encode())


def test_which_images_an_entity_keeps_does_not_depend_on_their_order(i2e, tmp_path):
    rows = [_drawn(str(i)) for i in range(40)]
    kept = [kept_labels(select_by_text(i2e(rows[:25], rows[25:]), max_images=9))]
    shutil.rmtree(tmp_path / "i2e")
    kept.append(kept_labels(select_by_text(i2e(rows[::-1]), max_images=9)))
    assert kept[0] == kept[1]


def test_an_entity_that_has_enough_gets_no_more(i2e):
    shards = [[_drawn(f"{s}-{i}") for i in range(30)] for s in range(4)]
    folder = i2e(*shards)
    summary = select_by_text(folder, max_images=20)
    assert summary.refused == {"entity_has_enough": 100}
    drawn = [sum(key.startswith(f"{s}-") for key in kept_labels(summary)) for s in range(4)]
    assert min(drawn) >= 1
    assert kept_labels(summary) == kept_labels(select_by_text(folder, max_images=20))


def test_a_smaller_cap_draws_from_what_the_larger_one_drew(i2e):
    folder = i2e([_drawn(str(i)) for i in range(50)])
    few, many = (kept_labels(select_by_text(folder, max_images=n)).keys() for n in (5, 20))
    assert few < many


def test_a_cap_below_the_least_is_a_contradiction(i2e):
    with pytest.raises(SettingsError, match="is below --min-images 5"):
        select_by_text(i2e([red("a")]), max_images=3, min_images=5)


# ---- without an encoder ----------------------------------------------------------------------


@pytest.mark.parametrize("order", ["joint", "text-first", "caption-match"])
def test_labels_without_an_encoder_go_by_their_texts(i2e, order):
    choice = unseen("red", prior=0.1, text=0.9), unseen("green", prior=0.1, text=0.1)
    summary = select_by_text(i2e([pair("a", *choice)]), order=order, threshold=None)
    assert kept_labels(summary) == {"a": ["red"]}
    assert (summary.looked, summary.threshold, summary.calibration) == (False, None, None)


def test_a_threshold_needs_images_that_somebody_looked_at(i2e):
    with pytest.raises(InputError, match="without looking at the images"):
        select_by_text(i2e([pair("a", unseen("red"))]), threshold=2.0)


# ---- all together ----------------------------------------------------------------------------


def _world(rng, benchmark):
    leak = fruit.photo("red", 5)
    rows = []
    for i in range(200):
        found = [
            candidate(str(rng.choice(["red", "lime", "plum"])), z=z, text=s, start=9 * k)
            for k, (z, s) in enumerate(rng.random((int(rng.integers(3)), 2)) * (5, 1))
        ]
        image = leak if i % 50 == 0 else bytes([rng.integers(150)])
        error = "corrupt_image" if i % 37 == 5 else ""
        text = float(rng.random())
        rows.append(
            pair(
                str(i),
                *([] if error else found),
                error=error,
                image=image,
                phash=int(rng.integers(2**7)) << 20,
                text=text,
            )
        )
    return rows


EVERYTHING = {"max_text_area": 0.9, "deny_types": ("stone fruit",), "max_images": 30}


def test_every_pair_is_accounted_for_exactly_once(i2e, rng, benchmark):
    rows = _world(rng, benchmark)
    folder = i2e(rows[:90], [], rows[90:], catalogue=TYPED)
    summary = select_by_text(
        folder, exclude=(str(benchmark),), duplicate_bits=0, min_images=5, **EVERYTHING
    )
    keys = [*kept_labels(summary), *refusal_reasons(summary)]
    assert sorted(keys) == sorted(row["key"] for row in rows)
    assert summary.kept + sum(summary.refused.values()) == summary.images == 200
    assert len(summary.refused) >= 8
    shards = pq.read_table(summary.out / "shards.parquet").to_pydict()
    assert (sum(shards["pairs"]), sum(shards["kept"])) == (200, summary.kept)


def test_the_reasons_stand_in_the_order_of_the_steps(i2e, rng, benchmark):
    folder = i2e(_world(rng, benchmark), catalogue=TYPED)
    summary = select_by_text(folder, exclude=(str(benchmark),), **EVERYTHING)
    steps = "corrupt_image no_mention text_in_picture evaluation_duplicate type_denied "
    steps += "picture_disagrees duplicate_exact duplicate_near entity_too_rare entity_has_enough"
    assert list(summary.refused) == [step for step in steps.split() if step in summary.refused]
    assert json.loads((summary.out / "card.json").read_text())["funnel"]["refused"] == (
        summary.refused
    )


def test_the_same_selection_again_gives_the_same_bytes(i2e, rng, benchmark):
    folder = i2e(_world(rng, benchmark), catalogue=TYPED)
    first = select_by_text(folder, **EVERYTHING)
    before = {path.name: path.read_bytes() for path in first.out.iterdir()}
    again = select_by_text(folder, **EVERYTHING)
    assert asdict(first) == asdict(again)
    assert before == {path.name: path.read_bytes() for path in again.out.iterdir()}
