import json
from pathlib import Path

import pytest

from openmofi.errors import InputError
from openmofi.evaluate.linking_data import read_linking
from openmofi.evaluate.linking_fit import examples_in, fit_on
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker

TEXT = "Nice saw Turkey win, Friday"


@pytest.fixture(scope="module")
def linker(tmp_path_factory) -> Linker:
    folder = tmp_path_factory.mktemp("kb")
    rows = ["id,name,weight", "tr,Turkey,9", "bird,turkey,3", "nice,Nice,5", "day,Friday,2"]
    (folder / "c.csv").write_text("\n".join(rows))
    build_kb(folder / "c.csv", out=folder / "kb")
    return Linker(KnowledgeBase.open(folder / "kb"))


def elevant(**changes) -> dict:
    labels = [
        {"span": [9, 15], "entity_id": "tr"},
        {"span": [21, 27], "entity_id": "", "type": "DATETIME"},
    ]
    return {"text": TEXT, "labels": labels, **changes}


MEL = {"sentence": TEXT, "mentions": ["Turkey", "Friday"], "answer": ["tr", "elsewhere"]}


def write(folder: Path, line: dict, *, name: str = "x.jsonl", times: int = 1) -> Path:
    path = folder / name
    path.write_text((json.dumps(line) + "\n") * times)
    return path


def examples(folder: Path, linker: Linker, line: dict, **file) -> list[tuple[str, str | None]]:
    """Returns the mentions that give examples, with what they mean."""
    found = examples_in(linker, read_linking(write(folder, line, **file)))
    rows = found.candidates.append_column("target", [found.target]).to_pylist()
    surfaces = dict.fromkeys(row["surface"] for row in rows)
    meant = {row["surface"]: row["id"] for row in rows if row["target"]}
    return [(surface, meant.get(surface)) for surface in surfaces]


def test_names_beside_a_complete_annotation_mean_nothing_but_a_date_is_unknown(tmp_path, linker):
    assert sorted(examples(tmp_path, linker, elevant())) == [("Nice", None), ("Turkey", "tr")]


def test_what_lies_outside_the_evaluated_part_is_unknown(tmp_path, linker):
    assert examples(tmp_path, linker, elevant(evaluation_span=[9, 27])) == [("Turkey", "tr")]


def test_partly_annotated_texts_teach_only_between_candidates(tmp_path, linker):
    assert examples(tmp_path, linker, MEL) == [("Turkey", "tr")]
    assert examples(tmp_path, linker, elevant(), name="rss-500.jsonl") == [("Turkey", "tr")]


def test_every_file_is_a_group(tmp_path, linker):
    mel = read_linking(write(tmp_path, MEL, name="mel.jsonl", times=100))
    whole = read_linking(write(tmp_path, elevant(), name="elevant.jsonl", times=100))
    fit = fit_on(linker, [mel, whole])
    assert (fit.mentions, fit.nil) == (300, 100)
    assert len(fit.nil_of_group) == 2
    assert fit.weights.fitted_on == "mel, elevant"


def test_questions_are_refused(tmp_path, linker):
    line = {"data_id": "1", "question": "what?", "entity_id": "tr"}
    with pytest.raises(InputError, match="asks questions"):
        fit_on(linker, [read_linking(write(tmp_path, line))])
