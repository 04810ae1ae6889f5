from pathlib import Path

import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.stats import KBStats, kb_stats

CATALOGUE = """id,name,aliases,description,type,image,weight
tr,Turkey,Türkiye,a country,Q6256,tr.png,9
bird,turkey,,a bird,animal,,4
Q6256,country,,,,,1
"""


@pytest.fixture(scope="module")
def stats(tmp_path_factory) -> KBStats:
    folder: Path = tmp_path_factory.mktemp("stats")
    (folder / "c.csv").write_text(CATALOGUE)
    build_kb(folder / "c.csv", out=folder / "kb")
    return kb_stats(KnowledgeBase.open(folder / "kb"))


def test_entities_and_names_are_counted(stats):
    assert (stats.entities, stats.names, stats.keys, stats.ambiguous_keys) == (3, 4, 3, 1)
    assert (stats.described, stats.with_image, stats.with_article) == (2, 1, 0)
    assert stats.kinds == {"label": 3, "alias": 1}
    assert stats.languages == {"und": 4}
    assert stats.sources == {"c.csv": 3}


def test_the_most_ambiguous_names_and_the_largest_types_are_named(stats):
    assert stats.most_ambiguous == [("turkey", 2)]
    assert sorted(stats.types) == [("Q6256", "country", 1), ("animal", "", 1)]


def test_bytes_are_counted_by_part(stats):
    assert {"entities.parquet", "names.parquet", "index", "ids", "texts"} <= set(stats.bytes)
    assert all(size > 0 for name, size in stats.bytes.items() if name != "rejects.jsonl")


def test_a_knowledge_base_without_usable_names_has_counts_too(tmp_path):
    (tmp_path / "c.csv").write_text("id,name\n1,\U0001f600\n")
    build_kb(tmp_path / "c.csv", out=tmp_path / "kb")
    found = kb_stats(KnowledgeBase.open(tmp_path / "kb"))
    assert (found.entities, found.names, found.ambiguous_keys, found.described) == (1, 0, 0, 0)
