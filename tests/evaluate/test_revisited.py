"""ROxford and RParis against the definition: sort, drop the junk, sum trapezoids."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from openmofi.errors import InputError
from openmofi.evaluate.ground_truth import GroundTruth, QueryTruth
from openmofi.evaluate.revisited import (
    is_revisited,
    mean_average_precision,
    open_revisited,
    revisited,
)

LEVELS = {"easy": ("e", "jh"), "medium": ("eh", "j"), "hard": ("h", "je")}


def _truth(*kinds):
    """One string per query: e, h, j or - for each image of the gallery."""
    queries = [
        QueryTruth(f"q{i}", (0, 0, 1, 1), *(np.flatnonzero(np.array([*k]) == c) for c in "ehj"))
        for i, k in enumerate(kinds)
    ]
    return GroundTruth(tuple(f"g{i}" for i in range(len(kinds[0]))), tuple(queries))


def _slow_scores(similarity, kinds, level):
    """Means over the queries of AP, P@1, P@5 and P@10, from whole rankings."""
    relevant, left_out = LEVELS[level]
    rows = []
    for scores, kind in zip(similarity, kinds, strict=True):
        ranking = sorted(range(len(scores)), key=lambda i, s=scores: (-s[i], i))
        shown = [kind[i : i + 1] or "-" for i in ranking]  # distractors have no kind
        hits = [c in relevant for c in shown if c not in left_out]
        if any(hits):
            rows.append([_slow_ap(hits), *(_slow_precision(hits, k) for k in (1, 5, 10))])
    return np.mean(rows, axis=0) if rows else [np.nan] * 4


def _slow_ap(hits):
    area, before, found = 0.0, 1.0, 0
    for seen, hit in enumerate(hits, 1):
        found += hit
        area += hit * (before + found / seen) / 2
        before = found / seen
    return area / found


def _slow_precision(hits, k):
    last = max(i for i, hit in enumerate(hits) if hit) + 1
    return sum(hits[: min(k, last)]) / min(k, last)


def _check(gallery, queries, kinds, distractors, given):
    got = mean_average_precision(gallery, queries, _truth(*kinds), distractors=given)
    similarity = queries @ np.concatenate([gallery, distractors]).T
    for level in LEVELS:
        names = [f"map_{level}", *(f"mp{k}_{level}" for k in (1, 5, 10))]
        expected = _slow_scores(similarity, kinds, level)
        np.testing.assert_allclose([got[name] for name in names], expected, rtol=0, atol=1e-9)


KINDS = st.lists(st.text("ehj---", min_size=17, max_size=17), min_size=1, max_size=4)


@given(KINDS, st.integers(0, 10_000), st.sampled_from([1, 2, 50]), st.integers(0, 20))
def test_scores_equal_the_slow_reference(kinds, seed, values, count):
    """Whole numbers make exact similarities: with few of them, nearly all images tie."""
    rng = np.random.default_rng(seed)
    make = [(17, 3), (len(kinds), 3), (count, 3)]
    gallery, queries, more = (rng.integers(-values, values, s).astype(np.float32) for s in make)
    _check(gallery, queries, kinds, more, more)
    _check(gallery, queries, kinds, more, iter([more[:1], more[1:8], more[8:8], more[8:]]))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_any_precision_and_many_images(rng, kind):
    kinds = ["".join(rng.choice([*"ehj------"], 400)) for _ in range(2)]
    gallery, queries, more = (
        rng.integers(-4, 5, s).astype(kind) for s in [(400, 5), (2, 5), (17_000, 5)]
    )
    _check(gallery, queries, kinds, more, more)


def test_a_perfect_ranking_scores_one_and_the_names_are_the_fields():
    gallery = np.array([[1.0], [0.9], [0.5], [0.1]], dtype=np.float32)
    scores = dict(revisited(gallery, np.ones((1, 1), np.float32), _truth("ejh-")))
    assert set(scores.values()) == {1.0}
    assert list(scores)[:5] == ["map_easy", "mp1_easy", "mp5_easy", "mp10_easy", "map_medium"]


def test_a_level_that_no_query_asks_has_no_score():
    gallery, query = np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)
    assert np.isnan(mean_average_precision(gallery, query, _truth("e--"))["map_hard"])
    assert "map_hard" not in dict(revisited(gallery, query, _truth("e--")))


def test_distractors_before_all_others_lower_the_score():
    gallery, query = np.ones((2, 1), np.float32), np.ones((1, 1), np.float32)
    better = np.full((3, 1), 2, np.float32)
    assert mean_average_precision(gallery, query, _truth("e-"))["map_easy"] == 1
    lower = mean_average_precision(gallery, query, _truth("e-"), distractors=better)
    assert (lower["map_easy"], lower["mp10_easy"]) == (1 / 8, 1 / 4)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            [(2, 3), (1, 3), (1, 3)],
            r"Vectors of the gallery have the shape \(2, 3\), expected .*\(3, 3\)",
        ),
        ([(3, 3), (2, 3), (1, 3)], r"Vectors of the queries have the shape \(2, 3\)"),
        ([(3, 2), (1, 3), (1, 3)], r"Vectors of the gallery have the shape \(3, 2\)"),
        ([(3, 3), (1, 3), (1, 2)], r"Vectors of the distractors have the shape \(1, 2\)"),
        ([(3,), (1, 3), (1, 3)], r"Vectors of the gallery have the shape \(3,\)"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(shapes, message):
    gallery, queries, more = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(InputError, match=message):
        mean_average_precision(gallery, queries, _truth("e--"), distractors=more)


@pytest.mark.parametrize("where", range(3))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(where, bad):
    vectors = [np.ones((n, 2), np.float32) for n in (3, 1, 4)]
    vectors[where][-1, 1] = bad
    with pytest.raises(InputError, match="hold NaN, infinity"):
        mean_average_precision(*vectors[:2], _truth("e--"), distractors=vectors[2])


def _write_images(folder, names):
    for name in names:
        path = folder / "jpg" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)


def _write_official(folder, name="roxford5k"):
    truth = {"easy": [0], "hard": np.array([1]), "junk": [], "bbx": np.array([1.5, 2, 30, 20])}
    content = {"imlist": ["a_1", "b_2"], "qimlist": ["q_3"], "gnd": [truth]}
    _write_images(folder / name, ["a_1", "b_2", "q_3"])
    (folder / name / f"gnd_{name}.pkl").write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("inside", ["", "datasets", "datasets/roxford5k"])
def test_the_official_folder_is_found_from_above_and_inside(tmp_path, inside):
    _write_official(tmp_path / "datasets")
    images = open_revisited(tmp_path / inside)
    assert is_revisited(tmp_path / inside)
    assert images.gallery.table["path"].to_pylist() == ["jpg/a_1.jpg", "jpg/b_2.jpg"]
    assert images.queries.table["path"].to_pylist() == ["jpg/q_3.jpg"]
    assert images.queries.table["crop"].to_pylist() == [[1.5, 2, 30, 20]]
    assert images.distractors is None
    assert images.truth.queries[0].hard.tolist() == [1]


def test_distractors_beside_the_folder_are_found_in_order(tmp_path):
    _write_official(tmp_path)
    _write_images(tmp_path / "revisitop1m", ["b/2", "a/3", "1"])
    found = open_revisited(tmp_path).distractors
    assert found.table["path"].to_pylist() == ["jpg/1.jpg", "jpg/a/3.jpg", "jpg/b/2.jpg"]
    assert (found.root / "jpg/a/3.jpg").is_file()


def test_an_empty_folder_of_distractors_is_refused(tmp_path):
    _write_official(tmp_path)
    (tmp_path / "revisitop1m").mkdir()
    with pytest.raises(InputError, match=r"revisitop1m' holds no jpg"):
        open_revisited(tmp_path)


def test_missing_images_are_counted_and_the_first_is_named(tmp_path):
    _write_official(tmp_path)
    for name in ("b_2", "q_3"):
        (tmp_path / f"roxford5k/jpg/{name}.jpg").unlink()
    with pytest.raises(InputError, match=r"^2 images are missing in .*first is 'jpg/b_2\.jpg'"):
        open_revisited(tmp_path)


def test_a_folder_with_both_wants_a_name(tmp_path):
    _write_official(tmp_path)
    _write_official(tmp_path, "rparis6k")
    with pytest.raises(InputError, match="roxford5k and rparis6k; pass the folder of one"):
        open_revisited(tmp_path)
    assert open_revisited(tmp_path, "rparis6k").gallery.root.name == "rparis6k"


def test_a_folder_without_either_is_refused(tmp_path):
    assert not is_revisited(tmp_path)
    with pytest.raises(InputError, match="holds no roxford5k or rparis6k"):
        open_revisited(tmp_path)
