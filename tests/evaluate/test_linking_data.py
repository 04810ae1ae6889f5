"""The formats of linking benchmarks: what is read, and what is refused for which reason."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.errors import InputError
from openmofi.evaluate.linking_data import find_span, read_linking

SHARED = Path(__file__).parents[3] / "shared" / "data" / "linking"

MEL_LIST = {
    "id": "7",
    "sentence": "Ford visits Stanford",
    "mentions": ["Ford", "Stanford"],
    "entities": ["Gerald Ford", "Stanford University"],
    "answer": ["Q9582", "Q41506"],
}
MEL_SINGLE = {
    "id": "Q23",
    "sentence": "Washington resigned.",
    "mentions": "Washington",
    "entities": "George Washington",
    "answer": "Q23",
}
ELEVANT = {
    "id": 3,
    "text": "Paris on Friday with CJ",
    "evaluation_span": [0, 23],
    "labels": [
        {"id": 0, "span": [0, 5], "entity_id": "Q90", "name": "Paris", "type": "Q2424752"},
        {"id": 1, "span": [9, 15], "entity_id": "Q130", "name": "Friday", "type": "DATETIME"},
        {"id": 2, "span": [21, 23], "entity_id": "<NIL>", "name": "Unknown", "type": "OTHER"},
    ],
}
ZELDA = {
    "id": "a b",
    "text": "Syracuse and Pitt",
    "index": [[13, 17], [0, 8]],
    "wikipedia_titles": ["University of Pittsburgh", "Unknown_Pleasures (film)"],
    "wikipedia_ids": [1, 2],
}
OVEN = {
    "data_id": "oven_entity_val_0",
    "image_id": "oven_0",
    "question": "what is the model of this aircraft?",
    "entity_id": "Q1141409",
    "entity_text": "Dassault Falcon 900",
    "data_split": "val_seen",
}


def write(path: Path, *lines) -> Path:
    encoded = [ln if isinstance(ln, bytes) else json.dumps(ln).encode() for ln in lines]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def spans(data, row=0):
    return [(m.start, m.end, m.id) for m in data.documents[row].mentions]


def test_melbench_is_read_in_its_list_form(tmp_path):
    data = read_linking(write(tmp_path / "mel.jsonl", MEL_LIST))
    assert (data.name, data.format, data.ids) == ("mel", "melbench", "kb")
    assert spans(data) == [(0, 4, "Q9582"), (12, 20, "Q41506")]
    assert data.documents[0].mentions[1].label == "Stanford University"


def test_melbench_is_read_in_its_single_form(tmp_path):
    data = read_linking(write(tmp_path / "mel.jsonl", MEL_SINGLE))
    assert spans(data) == [(0, 10, "Q23")]
    assert data.documents[0].key == "Q23"


def test_elevant_tells_entities_nil_and_dates_apart(tmp_path):
    data = read_linking(write(tmp_path / "e.jsonl", ELEVANT))
    kinds = [(m.id, m.optional) for m in data.documents[0].mentions]
    assert kinds == [("Q90", False), (None, True), (None, False)]
    assert [m.id for m in data.documents[0].required] == ["Q90"]


@pytest.mark.parametrize("marker", ["<NIL>", "<NO_MAPPING>", "Unknown", "Unknown17", ""])
def test_elevant_markers_of_no_entity_are_nil(tmp_path, marker):
    line = {"text": "CJ bats", "labels": [{"span": [0, 2], "entity_id": marker}]}
    assert spans(read_linking(write(tmp_path / "e.jsonl", line))) == [(0, 2, None)]


def test_elevant_labels_inside_a_label_are_refused(tmp_path):
    label = {"span": [0, 2], "entity_id": "Q1", "parent": 0}
    data = read_linking(write(tmp_path / "e.jsonl", {"text": "CJ", "labels": [label]}))
    assert data.refused == {"child_label": 1}


def test_zelda_gives_titles(tmp_path):
    data = read_linking(write(tmp_path / "z.jsonl", ZELDA))
    assert data.ids == "enwiki"
    assert spans(data)[1] == (0, 8, "Unknown_Pleasures (film)")
    assert data.documents[0].mentions[1].label == "Unknown Pleasures"


def test_oven_gives_one_entity_and_its_split(tmp_path):
    document = read_linking(write(tmp_path / "o.jsonl", OVEN)).documents[0]
    assert document.entity is not None
    assert (document.entity.id, document.split) == ("Q1141409", "val_seen")
    assert document.text == OVEN["question"]


def test_an_oven_line_without_an_answer_is_refused(tmp_path):
    data = read_linking(write(tmp_path / "o.jsonl", OVEN, {**OVEN, "entity_id": ""}))
    assert (len(data.documents), data.refused) == (1, {"no_gold_id": 1})


def test_gzip_is_read(tmp_path):
    path = tmp_path / "mel.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(MEL_SINGLE).encode()))
    assert read_linking(path).name == "mel"


def test_a_truncated_gzip_gives_its_readable_lines(tmp_path):
    lines = "\n".join(json.dumps({**MEL_SINGLE, "id": str(i)}) for i in range(20_000))
    path = tmp_path / "mel.jsonl.gz"
    path.write_bytes(gzip.compress(lines.encode())[:-9])
    data = read_linking(path)
    assert 0 < len(data.documents) < 20_000
    assert data.refused["truncated_file"] == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"sentence": "a', "bad_json"),
        (b"\xff\xfe", "bad_json"),
        (b'{"sentence": "\xff"}', "not_utf8"),
        (b"[1, 2]", "wrong_fields"),
        (b"[" * 100_000, "bad_json"),
        ({"sentence": "a", "mentions": 3, "answer": "Q1"}, "wrong_fields"),
        ({**MEL_SINGLE, "sentence": None}, "wrong_fields"),
        ({**MEL_SINGLE, "mentions": "Lincoln"}, "mention_not_in_text"),
        ({**MEL_SINGLE, "mentions": ""}, "mention_not_in_text"),
        ({**MEL_LIST, "answer": ["Q1"]}, "unequal_lists"),
    ],
)
def test_damaged_lines_are_counted(tmp_path, line, reason):
    data = read_linking(write(tmp_path / "mel.jsonl", line, MEL_LIST, b""))
    assert data.refused == {reason: 1}
    assert spans(data, -1) == [(0, 4, "Q9582"), (12, 20, "Q41506")]


@pytest.mark.parametrize("span", [[-1, 2], [2, 2], [3, 1], [0, 99]])
def test_spans_outside_the_text_are_refused(tmp_path, span):
    zelda = {**ZELDA, "index": [[0, 8], span]}
    assert read_linking(write(tmp_path / "z.jsonl", zelda)).refused == {"bad_span": 1}
    elevant = {"text": "Pitt", "labels": [{"span": span, "entity_id": "Q1"}]}
    assert read_linking(write(tmp_path / "e.jsonl", elevant)).refused == {"bad_span": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no readable line"),
        (b"\n\n", "no readable line"),
        (b"not json\n", "bad_json"),
        (b'{"id": "Q1", "name": "x"}\n', "has the keys id, name"),
        (b"{}\n", "(none)"),
        (b'{"sentence": 1, "mentions": "a", "answer": "Q1"}\n', "wrong_fields 1"),
    ],
)
def test_files_that_are_no_benchmark_are_refused_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_linking(path)
    assert words in str(error.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_linking(tmp_path / "no.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_linking(tmp_path)


def test_spans_are_code_points_beyond_the_basic_plane(tmp_path):
    line = {**MEL_SINGLE, "sentence": "🦊𝒳 ジョージア🏴", "mentions": "ジョージア"}
    data = read_linking(write(tmp_path / "mel.jsonl", line))
    assert spans(data) == [(3, 8, "Q23")]


def test_a_repeated_mention_takes_the_next_place(tmp_path):
    line = {**MEL_LIST, "sentence": "Ford, Ford", "mentions": ["Ford", "Ford"]}
    assert [s[:2] for s in spans(read_linking(write(tmp_path / "m.jsonl", line)))] == [
        (0, 4),
        (6, 10),
    ]


def test_whole_words_come_before_parts_of_words():
    assert find_span("Stanfords Ford", "ford", set()) == (4, 8)
    assert find_span("Oxford and ford", "ford", set()) == (11, 15)


@given(st.text(max_size=20), st.text(min_size=1, max_size=5), st.text(max_size=20))
def test_a_mention_is_found_where_it_stands(before, mention, after):
    span = find_span(before + mention + after, mention, set())
    assert span is not None
    assert (before + mention + after)[slice(*span)] == mention


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_reader(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    path.write_bytes(json.dumps(MEL_SINGLE).encode() + b"\n" + content)
    assert read_linking(path).documents[0].key == "Q23"


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "kind", "mentions", "refused"),
    [
        ("richpedia_mel.jsonl.gz", "melbench", 17141, 664),
        ("elevant_rss-500.jsonl", "elevant", 1000, 0),
        ("zelda_tweeki.jsonl", "zelda", 860, 0),
    ],
)
def test_real_benchmarks_are_read_whole(name, kind, mentions, refused):
    data = read_linking(SHARED / name)
    assert data.format == kind
    assert sum(len(d.mentions) for d in data.documents) == mentions
    assert sum(data.refused.values()) == refused
