"""OVEN's scores, by hand and by its authors' published numbers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate.oven import harmonic_mean, score_oven

TRUTH = [
    ("oven_entity_val_0", "Q1", "val_seen"),
    ("oven_entity_val_1", "Q2", "val_seen"),
    ("oven_entity_val_2", "Q3", "val_unseen"),
    ("oven_query_val_0", "Q4", "val_seen"),
    ("oven_query_val_1", "Q5", "val_unseen"),
]


def _lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _truth(folder, rows=TRUTH):
    keys = ("data_id", "entity_id", "data_split")
    return _lines(folder / "truth.jsonl", [dict(zip(keys, row, strict=True)) for row in rows])


def _answers(folder, answers, key="pred_entity_id"):
    rows = [{"data_id": data_id, key: answer} for data_id, answer in answers.items()]
    return _lines(folder / "answers.jsonl", rows)


@pytest.mark.parametrize("key", ["pred_entity_id", "prediction"])
def test_scores_are_harmonic_means_of_seen_and_unseen(tmp_path, key):
    answers = {row[0]: row[1] for row in TRUTH} | {"oven_entity_val_1": "Q9"}
    found = score_oven(_answers(tmp_path, answers, key), _truth(tmp_path))
    assert (found.entity.seen, found.entity.unseen) == (0.5, 1.0)
    assert found.entity.score == pytest.approx(2 / 3)
    assert found.query.score == 1.0
    assert found.overall == pytest.approx(0.8)
    assert (found.questions, found.missing, found.not_ids) == (5, 0, 0)


def test_missing_answers_and_answers_that_are_no_ids_count_as_wrong(tmp_path):
    answers = {"oven_entity_val_0": "Q1", "oven_entity_val_1": None, "oven_entity_val_2": "Paris"}
    found = score_oven(_answers(tmp_path, answers), _truth(tmp_path))
    assert (found.entity.seen, found.entity.unseen, found.entity.score) == (0.5, 0.0, 0.0)
    assert (found.missing, found.not_ids) == (3, 1)
    assert found.overall == 0.0


def test_one_split_alone_has_no_overall_score(tmp_path):
    found = score_oven(_answers(tmp_path, {}), _truth(tmp_path, TRUTH[:3]))
    assert (found.query, found.overall, found.entity.num_seen) == (None, None, 2)


def test_a_folder_names_the_split_of_each_file(tmp_path):
    for part, (_, entity, split) in zip(("entity", "query"), TRUTH[2:4], strict=True):
        row = {"data_id": f"{part[0]}7", "entity_id": entity, "data_split": split}
        _lines(tmp_path / f"oven_{part}_val.jsonl", [row])
    (tmp_path / "a").mkdir()
    found = score_oven(_answers(tmp_path / "a", {"q7": "Q4"}), tmp_path)
    assert (found.entity.unseen, found.entity.seen, found.query.seen) == (0.0, None, 1.0)


@pytest.mark.parametrize(
    ("data_id", "split", "name", "part"),
    [
        ("oven_query_val_0", "val_seen", "oven_entity_val.jsonl", "query"),
        ("oven_entity_val_0", "val_seen", "query.jsonl", "entity"),
        ("oven_entity_val_0", "query_val_seen", "entity.jsonl", "query"),
        ("q7", "val_seen", "query.jsonl", "query"),
        ("oven_query_val_0", "val_seen", "entity_and_query.jsonl", "query"),
    ],
)
def test_data_split_then_data_id_then_the_file_names_the_part(tmp_path, data_id, split, name, part):
    row = {"data_id": data_id, "entity_id": "Q1", "data_split": split}
    truth = _lines(tmp_path / name, [row])
    found = score_oven(_answers(tmp_path, {data_id: "Q1"}), truth)
    assert getattr(found, part).seen == 1.0
    assert (found.entity is None) == (part == "query")


def test_a_file_named_by_both_parts_names_none(tmp_path):
    row = {"data_id": "7", "entity_id": "Q1", "data_split": "val_seen"}
    truth = _lines(tmp_path / "entity_and_query.jsonl", [row])
    with pytest.raises(InputError, match="names no split"):
        score_oven(_answers(tmp_path, {}), truth)


def test_published_scores_of_blip2_come_out():
    entity, query = harmonic_mean(8.55, 3.4), harmonic_mean(24.63, 17.68)  # oven_eval's README
    means = round(query, 2), round(entity, 2), round(harmonic_mean(query, entity), 2)
    assert means == (20.58, 4.87, 7.87)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_the_harmonic_mean_lies_between_its_values_and_leans_to_the_lower(a, b):
    mean = harmonic_mean(a, b)
    assert min(a, b) <= mean * (1 + 1e-12)
    assert mean <= (a * b) ** 0.5 * (1 + 1e-12)
    assert harmonic_mean(a, 0.0) == 0.0


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ('{"data_id": "x", "pred_entity_id": "Q1"}', "'x' is not among the questions"),
        ('{"data_id": "oven_query_val_0", "pred_entity_id": "Q1"}\n' * 2, "is answered twice"),
        ('{"data_id": "oven_query_val_0"', "line 1 is not a JSON object"),
        ("[1]", "line 1 is not a JSON object"),
        ('\n{"data_id": "oven_query_val_0"}', "line 2: no text in pred_entity_id"),
        ('{"data_id": "oven_query_val_0", "prediction": 4}', "no text in pred_entity_id"),
        ('{"data_id": 4}', "data_id is 4"),
    ],
)
def test_wrong_answers_files_are_refused_with_the_line(tmp_path, answers, says):
    path = tmp_path / "answers.jsonl"
    path.write_text(answers)
    with pytest.raises(InputError, match=says):
        score_oven(path, _truth(tmp_path))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (TRUTH[0], "is there twice"),
        (("oven_entity_val_9", "Q1", "train"), "names no split"),
        (("e9", "Q1", "val_seen"), "names no split"),
        (("oven_entity_val_9", "", "val_seen"), "entity_id is ''"),
    ],
)
def test_wrong_truths_are_refused(tmp_path, row, says):
    with pytest.raises(InputError, match=says):
        score_oven(_answers(tmp_path, {}), _truth(tmp_path, [*TRUTH, row]))


def test_absent_and_empty_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="There is no"):
        score_oven(tmp_path / "no.jsonl", _truth(tmp_path))
    with pytest.raises(InputError, match="holds no questions"):
        score_oven(_answers(tmp_path, {}), _truth(tmp_path, []))


def test_folders_without_jsonl_files_are_refused(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "answers.json").write_text("{}")
    with pytest.raises(InputError, match=r"empty' holds no [.]jsonl file"):
        score_oven(empty, _truth(tmp_path))
    with pytest.raises(InputError, match=r"empty' holds no [.]jsonl file"):
        score_oven(_answers(tmp_path, {}), empty)
