"""What is written of entities: label, types and description, whatever of them is missing."""

import json

import pytest

from openmofi.kb import KnowledgeBase, build_kb

ROWS = {
    "crane": {"name": "crane", "description": "a wader", "types": ["bird", "animal", "thing"]},
    "hoist": {"name": "crane", "types": ["machine"]},
    "town": {"name": "Crane", "description": "in Texas"},
    "bare": {"name": "Crane Lake"},
}


@pytest.mark.parametrize(
    ("id_", "text", "in_full"),
    [
        ("crane", "crane (bird, animal): a wader", "crane: a wader (bird, animal, thing)"),
        ("hoist", "crane (machine)", "crane (machine)"),
        ("town", "Crane: in Texas", "Crane: in Texas"),
        ("bare", "Crane Lake", "Crane Lake"),
    ],
)
def test_an_entity_is_told_by_label_nearest_types_and_description(tmp_path, id_, text, in_full):
    lines = [json.dumps({"id": own, **row}) for own, row in ROWS.items()]
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    kb = KnowledgeBase.open(build_kb(tmp_path / "c.jsonl", out=tmp_path / "kb").out)
    rows = kb.rows_of([id_])
    assert kb.text_with_types(rows) == [text]
    assert kb.texts.in_full(rows).to_pylist() == [in_full]
