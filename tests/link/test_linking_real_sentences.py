"""Real sentences against a knowledge base of their entities' labels: does the matcher lose any?"""

import csv
import gzip
import json
from pathlib import Path

import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker

SHARED = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


@pytest.fixture(scope="module")
def sentences() -> list[dict]:
    with gzip.open(SHARED / "linking" / "richpedia_mel.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def kb(sentences, tmp_path_factory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("richpedia")
    with (folder / "gold.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "name"])
        rows.writerows((item["answer"], item["entities"]) for item in sentences)
    dump = SHARED / "wikidata" / "sample_items_100.json.bz2"
    build_kb([folder / "gold.csv", dump], out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


def test_labels_that_occur_in_real_sentences_are_found(sentences, kb):
    verbatim = [item for item in sentences if item["entities"] in item["sentence"]]
    table = Linker(kb).link([item["sentence"] for item in verbatim], all_candidates=True)
    found = set(zip(table["row"].to_pylist(), table["id"].to_pylist(), strict=True))
    recall = sum((row, item["answer"]) in found for row, item in enumerate(verbatim))
    assert len(verbatim) > 5000
    assert recall / len(verbatim) > 0.997
