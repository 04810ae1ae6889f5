"""An index that says «nothing here»: its p-values by a slow reference, and what makes them old."""

import csv

import numpy as np
import pytest

from indexed import make_index, unit, write_embeddings
from openmofi.arrays.random_keys import Purpose, random_key
from openmofi.config import PresenceSettings
from openmofi.errors import InputError, SettingsError
from openmofi.kb import build_kb
from openmofi.model import load_model
from openmofi.search import Filter, Index, Searcher, Term
from openmofi.search.calibrate import PresenceQuery, calibrate, null_scores
from openmofi.search.layout import make_map
from openmofi.search.presence import NullScores, PresenceCalibration

DIM, IMAGES_EACH = 24, 8


def _things(rng, count):
    """Returns unit vectors of images of `count` things, and what each shows."""
    centres = rng.standard_normal((count, DIM))
    of = np.repeat(np.arange(count), IMAGES_EACH)
    return unit(centres[of] + 0.35 * rng.standard_normal((len(of), DIM))), of


def _labelled(folder, vectors, of, **more):
    return make_index(folder, vectors, entities=[[f"e{thing}"] for thing in of], **more)


def _asked(searcher, vector, **given):
    return searcher.search([Term("vector", vector, of="image")], **given).presence


@pytest.fixture
def world(tmp_path, rng):
    """90 things, of which the first 60 are indexed: (calibrated searcher, absent, present)."""
    vectors, of = _things(rng, 90)
    first = np.arange(len(of)) % IMAGES_EACH == 0  # asked with, never indexed
    index = _labelled(tmp_path, vectors[(of < 60) & ~first], of[(of < 60) & ~first])
    searcher = Searcher(calibrate(Searcher(index)))
    return searcher, vectors[(of >= 60) & first], vectors[(of < 60) & first]


def test_absent_things_are_not_found_and_present_ones_are(world):
    searcher, absent, present = world
    assert sum(_asked(searcher, vector).found is False for vector in absent) >= 28
    assert sum(_asked(searcher, vector).found is True for vector in present) >= 57


def test_the_nearest_are_returned_even_so(world):
    searcher, [first, *_], _ = world
    found = searcher.search([Term("vector", first, of="image")], k=3)
    assert (found.presence.found, len(found.hits)) == (False, 3)
    assert "look as present" in found.presence.sentence


def test_a_higher_rate_finds_more(world):
    searcher, absent, present = world
    for vector in [*absent, *present]:
        lax, strict = (_asked(searcher, vector, absent_rate=rate).found for rate in (0.9, 0.02))
        assert lax or not strict
    assert any(_asked(searcher, v, absent_rate=0.9).found for v in absent)


def test_a_rate_that_so_few_entities_cannot_keep_is_not_promised(world):
    searcher, _, [first, *_] = world
    presence = _asked(searcher, first, absent_rate=0.01)
    assert presence.found is None
    assert "60 entities are too few" in presence.sentence
    with pytest.raises(SettingsError, match="cannot be 1"):
        _asked(searcher, first, absent_rate=1.0)


def test_a_copy_of_an_image_is_found_whatever_else_there_is(world):
    searcher, _, _ = world
    assert _asked(searcher, searcher.index.vectors(np.array([5]))[0]).found is True


def test_a_filter_asks_about_the_rows_that_pass(world):
    searcher, _, present = world
    mine = Filter(entities=("e3",))
    assert _asked(searcher, present[3], filter=mine).found is True
    assert _asked(searcher, present[3], filter=Filter(not_entities=("e3",))).found is False
    assert _asked(searcher, present[3], filter=Filter(entities=("nothing",))).found is False


def test_mixes_rows_and_least_scores_are_not_told_to_be_absent(world):
    searcher, [first, *_], _ = world
    term = Term("vector", first, of="image")
    for terms, given in (
        ([term, Term("row", 3)], {}),
        ([Term("vector", first, -1.0, of="image")], {}),
        ([Term("row", 3)], {}),
        ([], {}),
        ([term], {"min_score": 0.1}),
    ):
        assert searcher.search(terms, **given).presence.found is None


def test_a_labelled_entity_is_there_and_its_images_are_counted(world):
    searcher, _, _ = world
    presence = searcher.search([Term("entity", "e3")]).presence
    assert (presence.found, presence.p_value) == (True, None)
    assert presence.sentence == "7 of the images are labelled with it."


def _slow_p_value(null: NullScores, features: np.ndarray) -> float:
    total = 1.0
    for entity in range(null.num_entities):
        own = [i for i in range(len(null.score)) if null.entity[i] == entity]
        [fold] = {int(null.fold[i]) for i in own}
        score = sum(float(w * x) for w, x in zip(null.weights[fold], features, strict=True))
        total += sum(null.score[i] >= score - 1e-9 for i in own) / len(own)
    return total / (null.num_entities + 1)


def test_p_values_are_those_of_a_slow_reference(rng):
    entity = np.repeat(np.arange(30), rng.integers(1, 4, 30))
    null = NullScores(rng.random((5, 4)), rng.random(len(entity)) * 2, entity % 5, entity)
    features = rng.random((40, 4))
    slow = [_slow_p_value(null, row) for row in features]
    np.testing.assert_allclose(null.p_values(features), slow, rtol=1e-12)


def test_p_values_of_absent_things_are_at_most_as_small_as_asked(rng):
    """Entities drawn alike, each with several alike queries: p <= .1 for at most .1 of new ones."""
    small = []
    for _ in range(400):
        centre = rng.standard_normal(41)
        entity = np.repeat(np.arange(40), 5)
        score = centre[entity] + 0.3 * rng.standard_normal(200)
        null = NullScores(np.tile([1.0, 0, 0, 0], (5, 1)), score, entity % 5, entity)
        new = np.array([[centre[40] + 0.3 * rng.standard_normal(), 0, 0, 0]])
        small.append(null.p_values(new)[0] <= 0.1)
    assert 0.04 < np.mean(small) < 0.14  # .1, up to three deviations of 400 draws


def _slow_features(cosines, background):
    best = sorted(cosines.tolist(), reverse=True)
    return [np.mean(best[:5]), np.mean(best[:20]), np.mean(background), np.std(background)]


def test_null_scores_are_those_of_leaving_rows_out_by_hand(tmp_path, rng):
    vectors, of = _things(rng, 25)
    index = _labelled(tmp_path, vectors, of)
    stored, rows = index.vectors(np.arange(len(of))), np.arange(0, len(of), IMAGES_EACH)
    asked = unit(stored[rows])
    queries = [
        PresenceQuery(vector, f"e{of[r]}", index.rows_of(f"e{of[r]}"), r)
        for r, vector in zip(rows, asked, strict=True)
    ]
    null = null_scores(index, queries, np.arange(len(of)), stored)
    names = sorted(query.entity for query in queries)
    for i, query in enumerate(queries):
        others = stored[~np.isin(np.arange(len(of)), query.leave)] @ query.vector
        fold = names.index(query.entity) % 5
        score = float(np.dot(null.weights[fold], _slow_features(others, others)))
        assert null.fold[i] == fold
        assert null.score[i] == pytest.approx(score, abs=1e-4)


def test_many_images_of_an_entity_are_left_out_as_few_are(tmp_path, rng, monkeypatch):
    vectors, of = _things(rng, 25)
    index = _labelled(tmp_path, vectors, of)
    query = PresenceQuery(vectors[0], "e0", index.rows_of("e0"), 0)
    asked = [query] * 3
    sample = np.arange(len(of))
    few = null_scores(index, asked, sample, index.vectors(sample))
    monkeypatch.setattr("openmofi.search.calibrate._DEEP", 2)
    many = null_scores(index, asked, sample, index.vectors(sample))
    np.testing.assert_allclose(few.score, many.score, atol=1e-5)


def test_the_same_index_is_calibrated_to_the_same_numbers(tmp_path, rng):
    vectors, of = _things(rng, 30)
    index = _labelled(tmp_path, vectors, of)
    once = calibrate(Searcher(index)).calibration.nulls["image"]
    again = calibrate(Searcher(Index.open(index.folder))).calibration.nulls["image"]
    for name in ("weights", "score", "fold", "entity"):
        assert np.array_equal(getattr(once, name), getattr(again, name))
    assert len([*index.folder.glob("calibration-*")]) == 1  # the old one is removed


def test_the_background_of_a_query_is_that_of_the_sample(world, rng):
    index = world[0].index
    vectors = index.vectors(np.arange(index.num_rows))  # fewer than the sample has at most
    query = unit(rng.standard_normal((1, DIM)))[0]
    *_, mean, deviation = index.calibration.features(query, np.ones(20))
    assert mean == pytest.approx(float((vectors @ query).mean()), abs=1e-5)
    assert deviation == pytest.approx(float((vectors @ query).std()), abs=1e-5)


def test_too_few_entities_are_refused(tmp_path, rng):
    vectors, of = _things(rng, 19)
    with pytest.raises(InputError, match="has images of 19 entities, too few"):
        calibrate(Searcher(_labelled(tmp_path, vectors, of)))


def test_an_index_that_was_not_calibrated_says_so(tmp_path, rng):
    vectors, of = _things(rng, 3)
    presence = _asked(Searcher(_labelled(tmp_path, vectors, of)), vectors[0])
    assert presence.found is None
    assert "openmofi index calibrate" in presence.sentence


def test_a_calibration_grows_old_with_the_index(world, tmp_path, rng):
    searcher, [first, *_], _ = world
    index = searcher.index.delete([0, 1, 2, 3])  # of 420: a hundredth at most may differ
    assert _asked(Searcher(index), first).found is False
    index = make_map(index)  # is no change of the rows
    assert _asked(Searcher(index), first).found is False
    index = index.add(write_embeddings(tmp_path / "more.parquet", unit(rng.random((4, DIM)))))
    presence = _asked(Searcher(index), first)
    assert presence.found is None
    assert "has changed by 2%" in presence.sentence
    assert _asked(Searcher(calibrate(Searcher(index.compact()))), first).found is False


def test_a_damaged_calibration_says_so(world):
    [file] = world[0].index.folder.glob("calibration-*")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="is damaged"):
        Index.open(world[0].index.folder)


def test_entities_are_drawn_by_the_seed(tmp_path, rng):
    vectors, of = _things(rng, 60)
    index = _labelled(tmp_path, vectors, of)
    few = PresenceSettings(max_entities=30)
    null = calibrate(Searcher(index), few).calibration.nulls["image"]
    assert (null.num_entities, len(null.score)) == (30, 60)
    assert random_key(0, Purpose.PRESENCE) != random_key(1, Purpose.PRESENCE)


# ---- with texts: images are where a model puts their names -------------------------------------

_NAMES = [f"{colour} {thing}" for thing in ("apple", "pear", "lime", "plum", "fig", "date", "kiwi")
          for colour in ("red", "green", "blue", "pink", "grey", "gold")]  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory, nano_dir):
    """42 entities of a catalogue, of which the first 36 have images; no image exists as a file."""
    folder, rng = tmp_path_factory.mktemp("named"), np.random.default_rng(0)
    with (folder / "fruit.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "name"), *((f"e{i}", n) for i, n in enumerate(_NAMES))])
    kb = build_kb(folder / "fruit.csv", out=folder / "kb")
    texts = load_model(nano_dir).encode_texts(_NAMES[:36])
    of = np.repeat(np.arange(36), IMAGES_EACH)
    spread = 0.02 * rng.standard_normal((len(of), texts.shape[1]))
    given = {"kb": folder / "kb", "model": nano_dir}
    assert kb
    index = _labelled(folder, unit(texts[of] + spread), of, **given)
    return calibrate(Searcher(index)).folder


def test_names_of_absent_things_find_nothing(named):
    searcher = Searcher(named)
    assert searcher.index.calibration.nulls["text"].num_entities == 36
    asked = [searcher.search([Term("text", name)]).presence.found for name in _NAMES]
    assert sum(asked[:36]) >= 34
    assert sum(asked[36:]) <= 1


def test_an_entity_without_images_is_asked_for_by_its_text(named):
    searcher = Searcher(named)
    for name in ("e40", "grey kiwi"):
        found = searcher.search([Term("entity", name)])
        by_text = searcher.search([Term("text", "grey kiwi")])
        assert [hit.row for hit in found.hits] == [hit.row for hit in by_text.hits]
        assert found.presence == by_text.presence
    found = searcher.ask([], filter=Filter(entities=("e40",)), k=3)
    assert len(found.hits) == 3
    with pytest.raises(InputError, match="No image of the index is labelled 'durian'"):
        searcher.search([Term("entity", "durian")])


def _write_queries(path, rows, columns=("query", "present")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_queries_labelled_by_hand_replace_the_names(named, tmp_path):
    rows = [(name, "yes") for name in _NAMES[:10]]
    rows += [(f"{name} on a table", "no") for name in _NAMES[12:36]]
    hand = _write_queries(tmp_path / "q.csv", rows)
    null = calibrate(Searcher(named), queries=hand).calibration.nulls["text"]
    assert (null.num_entities, len(null.score)) == (24, 24)
    rows = [(f"a {name}", f"e{i}") for i, name in enumerate(_NAMES)]
    hand = _write_queries(tmp_path / "q.csv", rows, ("query", "entity"))
    null = calibrate(Searcher(named), queries=hand).calibration.nulls["text"]
    assert (null.num_entities, len(null.score)) == (42, 42)


@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([("red apple", "perhaps")], "Line 2 of .* is not a labelled query"),
        ([("", "yes")], "Line 2 of .* is not a labelled query"),
        ([("red apple", "no")], "queries for 1 things"),
        ([(name, "no") for name in _NAMES], "at least one for something present"),
    ],
)
def test_wrong_queries_are_refused(named, tmp_path, rows, part):
    with pytest.raises(InputError, match=part):
        calibrate(Searcher(named), queries=_write_queries(tmp_path / "q.csv", rows))


def test_what_was_written_is_what_is_read(named, tmp_path):
    stored = Index.open(named).calibration
    stored.write(tmp_path / "c.npz")
    again = PresenceCalibration.read(tmp_path / "c.npz")
    assert (again.rate, [*again.nulls]) == (0.05, ["text", "image"])
    assert np.array_equal(again.covariance, stored.covariance)
