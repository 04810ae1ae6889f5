"""The page that compares runs: which classes count, what is left out, and what is refused."""

import json
import re

import numpy as np
import pytest

import fruit
from openmofi.errors import InputError
from openmofi.evaluate import evaluate
from openmofi.evaluate.classes_plot import Point, plot_by_classes
from openmofi.evaluate.compare import compare
from openmofi.evaluate.results import Scores, read_results, write_results

GPR = {"gpr1200_all": 0.5}


def _run(folder, name, *, classes=None, score=0.5, dataset="shop", **more):
    """Writes the scores of a run and returns its folder."""
    metrics = more.pop("metrics", {"retrieval_map": score, "top1": 0.25})
    given = {"images": 9, "classes": 3, "unreadable": 0, "layout": "labelled"} | more
    scores = Scores(f"{name}/model", dataset, metrics=metrics, classes_learnt=classes, **given)
    write_results(folder / name, [scores])
    return folder / name


def _page(folder, *runs, **more):
    compare({run.name: run for run in runs}, out=folder / "c.html", **more)
    return (folder / "c.html").read_text()


def test_scores_are_read_as_they_were_written(tmp_path):
    run = _run(tmp_path, "a", classes=7, unreadable=2)
    [scores] = read_results(run)
    assert (scores.classes_learnt, scores.unreadable, scores.metrics["top1"]) == (7, 2, 0.25)


def test_every_run_with_a_number_of_classes_is_a_point(tmp_path):
    runs = [_run(tmp_path, f"r{n}", classes=n, score=n / 200) for n in (10, 100)]
    page = _page(tmp_path, *runs)
    said = re.findall(r"<title>(r\d+: .*?)</title>", page)
    assert said == ["r10: 0.0500, 10 classes", "r100: 0.5000, 100 classes"]
    assert "Not drawn" not in page


def test_a_run_without_is_left_out_with_a_sentence_until_its_number_is_given(tmp_path):
    runs = _run(tmp_path, "a", classes=5), _run(tmp_path, "b")
    assert "how many classes they learnt: b." in _page(tmp_path, *runs)
    page = _page(tmp_path, *runs, classes={"b": 70, "a": 6})
    assert "Not drawn" not in page
    assert "b: 0.5000, 70 classes" in page
    assert "a: 0.5000, 6 classes" in page  # what is given counts


def test_without_any_number_there_is_no_plot_but_the_scores(tmp_path):
    page = _page(tmp_path, _run(tmp_path, "a"), _run(tmp_path, "b", score=0.75))
    assert "<svg" not in page
    assert "<b>0.75</b>" in page


def test_models_with_published_numbers_of_classes_are_hollow_points_of_gpr1200(tmp_path):
    whole = {"metrics": GPR, "layout": "gpr1200", "images": 12_000, "dataset": "g"}
    page = _page(tmp_path, _run(tmp_path, "a", classes=50, **whole))
    assert "MOFI: 0.8666, 2,000,000 classes" in page
    assert len(re.findall("fill:Canvas", page)) == 2
    assert "CLIP" not in page  # nobody says how many classes it learnt


def test_other_data_under_one_name_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is 9 images of 3 classes.* for 'a', but 8 images"):
        _page(tmp_path, _run(tmp_path, "a"), _run(tmp_path, "b", images=8))
    assert _page(tmp_path, _run(tmp_path, "a"), _run(tmp_path, "b", images=8, unreadable=1))


def test_distractors_make_another_benchmark(tmp_path):
    harder = {"metrics": {"map_medium": 0.5}, "layout": "revisited"}
    plain = _run(tmp_path, "a", **harder)
    with pytest.raises(InputError, match="beside 100 distractors"):
        _page(tmp_path, plain, _run(tmp_path, "b", notes={"distractors": 100}, **harder))


@pytest.mark.parametrize(
    ("classes", "message"),
    [({"c": 1}, "no run 'c'; expected some of a"), ({"a": 0}, "cannot have learnt 0 classes")],
)
def test_numbers_of_classes_that_fit_no_run_are_refused(tmp_path, classes, message):
    with pytest.raises(InputError, match=message):
        _page(tmp_path, _run(tmp_path, "a"), classes=classes)


def test_what_is_no_evaluation_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no scores\.json"):
        compare({"a": tmp_path}, out=tmp_path / "c.html")
    with pytest.raises(InputError, match="Nothing to compare"):
        compare({}, out=tmp_path / "c.html")
    run = _run(tmp_path, "a")
    for damaged in ("[", "[1]", "[]", "{}", '[{"model": "m"}]'):
        (run / "scores.json").write_text(damaged)
        with pytest.raises(InputError, match="is damaged"):
            compare({"a": run}, out=tmp_path / "c.html")


def test_a_damaged_file_of_images_is_named(tmp_path):
    run = _run(tmp_path, "a")
    (run / "top1.json").write_text("{")
    with pytest.raises(InputError, match=r"top1.json' is damaged"):
        compare({"a": run}, out=tmp_path / "c.html")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Returns the outputs of a run that is always right and of one that never is."""
    folder = tmp_path_factory.mktemp("two")
    for number in range(6):
        place = folder / "data" / fruit.NAMES[number // 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(fruit.photo(place.name, number))
    for name, order in (("good", [0, 0, 1, 1, 2, 2]), ("bad", [0, 1, 2, 0, 1, 2])):
        np.save(folder / "e.npy", np.eye(3, dtype=np.float32)[order])
        evaluate(data={"d": folder / "data"}, embeddings=folder / "e.npy", out=folder / name)
    return folder


def test_the_nearest_images_of_all_runs_stand_below_the_same_queries(two, tmp_path):
    page = _page(tmp_path, two / "good", two / "bad")
    [table] = re.findall('<table class="top1">.*?</table>', page, re.S)
    queries, good, bad = table.split("<tr>")[1:]
    assert queries.count("<figure>") == good.count("<figure>") == bad.count("<figure>") == 6
    assert good.count('<figcaption class="right">') == 6
    assert bad.count('<figcaption class="wrong">') == 6


def test_runs_without_recorded_images_are_named(two, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old/scores.json").write_text((two / "bad/scores.json").read_text())
    page = _page(tmp_path, two / "good", tmp_path / "old")
    assert "Not recorded for old" in page


def test_queries_that_a_run_does_not_have_are_not_shown(two, tmp_path):
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    (fewer / "scores.json").write_text((two / "good/scores.json").read_text())
    rows = json.loads((two / "good/top1.json").read_text())["d"]
    (fewer / "top1.json").write_text(json.dumps({"d": rows[:4]}))
    page = _page(tmp_path, two / "good", fewer)
    assert "2 queries are not in all runs" in page
    assert page.count("<figure>") == 3 * 4


@pytest.mark.parametrize("numbers", [[1], [20, 20], [1, 2_000_000], [30, 40], [10**20]])
def test_a_plot_has_every_point_inside_its_axes(numbers):
    points = [Point(f"run {i}", n, i / 10) for i, n in enumerate(numbers)]
    drawn = plot_by_classes(points, "retrieval_map")
    found = re.findall(r'<circle cx="(.*?)" cy="(.*?)"', drawn)
    assert all(50 < float(x) < 696 and 16 <= float(y) <= 354 for x, y in found)
    assert len(found) == len(numbers)
    assert all(f">run {i}</text>" in drawn for i in range(len(numbers)))


@pytest.mark.parametrize(
    ("numbers", "ticks"),
    [([22, 33], ["20", "30", "40"]), ([20, 2000], ["20", "50", "100", "200", "500", "1,000"])],
)
def test_the_axis_has_round_numbers(numbers, ticks):
    drawn = plot_by_classes([Point("a", number, 0.5) for number in numbers], "map_medium")
    assert re.findall(r'y="371" text-anchor="middle">([\d,]+)<', drawn)[: len(ticks)] == ticks
