"""The files that an evaluation leaves, and that CLIP_benchmark's tools could read them."""

import csv
import json

import pytest

from openmofi.evaluate.results import (
    Scores,
    clip_benchmark_records,
    is_share,
    write_results,
)

METRICS = {"retrieval_map": 0.5, "zero_shot": 0.25, "zero_shot_top5": 0.75, "probe": 0.9}
SCORES = [
    Scores("run/model", "shop", 100, 7, 2, METRICS, "labelled", {"refused": {"corrupt_image": 2}}),
    Scores("run/model", "wds/vtab-x", 50, 3, 0, {"zero_shot": 0.125}),
]


def _built(folder):
    """Returns the rows of a table as CLIP_benchmark's `build` makes it from a folder's files."""
    rows = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        row = {**record["metrics"], **record}
        row["model_fullname"] = row["model"] + " " + row["pretrained"]
        rows.append(row)
    return rows


def test_every_score_is_in_each_file(tmp_path):
    write_results(tmp_path, SCORES)
    [shop, other] = json.loads((tmp_path / "scores.json").read_text())
    assert shop["metrics"] == METRICS
    assert (other["dataset"], other["metrics"]) == ("wds/vtab-x", {"zero_shot": 0.125})
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {row["metric"]: float(row["value"]) for row in rows if row["dataset"] == "shop"}
    assert found == METRICS
    assert {row["unreadable"] for row in rows} == {"2", "0"}


def test_scores_go_by_clip_benchmarks_names_there(tmp_path):
    write_results(tmp_path, SCORES)
    rows = {(row["dataset"], row["task"]): row for row in _built(tmp_path / "clip_benchmark")}
    assert rows["shop", "zeroshot_classification"]["acc1"] == 0.25
    assert rows["shop", "zeroshot_classification"]["acc5"] == 0.75
    assert rows["shop", "linear_probe"]["lp_acc1"] == 0.9
    assert rows["shop", "openmofi"]["retrieval_map"] == 0.5
    assert rows["wds/vtab-x", "zeroshot_classification"]["acc1"] == 0.125
    assert len(rows) == 4


def test_no_score_is_lost_between_the_tasks():
    total = [
        value for record in clip_benchmark_records(SCORES) for value in record["metrics"].values()
    ]
    assert sorted(total) == sorted([*METRICS.values(), 0.125])


def test_settings_and_counts_are_no_shares():
    names = ["probe", "probe_c", "tag_top1", "probe_converged", "map_hard", "knn"]
    counts = ["probe_unseen_classes", "tag_unknown_entities"]
    assert [n for n in names + counts if is_share(n)] == ["probe", "tag_top1", "map_hard", "knn"]


def test_what_clip_benchmark_does_not_know_is_no_task_of_its_own():
    odd = Scores("m", "d", 9, 3, 0, {"probe": 0.5, "probe_c": 8.0, "knn": 0.25})
    tasks = {record["task"]: record["metrics"] for record in clip_benchmark_records([odd])}
    assert tasks == {"linear_probe": {"lp_acc1": 0.5}, "openmofi": {"probe_c": 8.0, "knn": 0.25}}


def test_an_earlier_evaluations_files_do_not_stay(tmp_path):
    write_results(tmp_path, SCORES)
    write_results(tmp_path, SCORES[1:])
    assert len(_built(tmp_path / "clip_benchmark")) == 1


@pytest.mark.parametrize("name", ["../up", "a b/c:d", "ä"])
def test_a_datasets_name_never_leads_out_of_the_folder(tmp_path, name):
    write_results(tmp_path / "out", [Scores("m", name, 1, 1, 0, {"zero_shot": 1.0})])
    [path] = tmp_path.rglob("*_zeroshot_classification.json")
    assert path.parent == tmp_path / "out" / "clip_benchmark"
