import json
import subprocess
import sys
from pathlib import Path

import pytest

from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase, build_kb

CATALOGUE = """id,name,aliases,description,weight
c,Georgia,Sakartvelo,country in the Caucasus,9
s,Georgia,Peach State,state of the USA,4
m,Georgian Museum,,,1
z,Zoë,,,
"""


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("store")
    (folder / "c.csv").write_text(CATALOGUE)
    build_kb(folder / "c.csv", out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


def test_a_name_gives_its_entities_with_priors(kb):
    found = kb.query("GEORGIA")
    assert [(c.id, c.prior, c.match) for c in found] == [
        ("c", pytest.approx(2 / 3), "exact"),
        ("s", pytest.approx(1 / 3), "exact"),
    ]


def test_limit_keeps_the_most_probable(kb):
    assert [c.id for c in kb.query("georgia", limit=1)] == ["c"]


@pytest.mark.parametrize(
    ("name", "identifiers", "match"),
    [
        ("peach", ["s"], "prefix"),
        ("georg", ["c", "s", "m"], "prefix"),
        ("Gorgia", ["c", "s"], "similar"),
        ("zoee", ["z"], "similar"),
    ],
)
def test_unknown_names_give_suggestions(kb, name, identifiers, match):
    found = kb.query(name)
    assert [c.id for c in found] == identifiers
    assert {c.match for c in found} == {match}


@pytest.mark.parametrize("name", ["", "?!", "nothing like it"])
def test_hopeless_names_give_nothing(kb, name):
    assert kb.query(name) == []


def test_rows_and_ids_translate_both_ways(kb):
    assert [kb.row_of(identifier) for identifier in kb.ids.to_pylist()] == [0, 1, 2, 3]
    assert kb.row_of("nobody") is None
    assert len(kb) == 4


def test_entity_text_is_label_and_description(kb):
    rows = [kb.row_of("c"), kb.row_of("z")]
    assert kb.entity_text(rows) == ["Georgia: country in the Caucasus", "Zoë"]


def test_show_tells_everything(kb):
    view = kb.show("s")
    assert (view.row, view.num_aliases, view.source) == (1, 1, "c.csv")
    assert view.names == {"und": ["Georgia", "Peach State"]}


def test_show_explains_an_unknown_id(kb):
    with pytest.raises(InputError, match="has no entity 'Q404'; find ids by name"):
        kb.show("Q404")


def test_a_folder_that_is_no_knowledge_base_is_explained(tmp_path):
    with pytest.raises(InputError, match="is not a knowledge base; build one with: openmofi kb"):
        KnowledgeBase.open(tmp_path / "nowhere")


def test_other_versions_are_refused(kb, tmp_path):
    meta = {**kb.meta, "canonical_version": 0}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(MismatchError, match=r"canonical version 0, this OpenMOFI needs 2"):
        KnowledgeBase.open(tmp_path)


def test_torch_stays_unloaded():
    code = "import sys, openmofi.kb, openmofi.link; sys.exit('torch' in sys.modules)"
    source = str(Path(__file__).parents[2] / "src")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": source})


def test_long_names_are_not_corrected(kb):
    assert kb.query("x" * 5000) == []


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(kb, limit):
    with pytest.raises(InputError, match="expected at least 1"):
        kb.query("peach", limit=limit)


def test_an_id_that_is_no_unicode_is_unknown(kb):
    assert kb.row_of("\udce9") is None
