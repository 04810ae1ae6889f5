from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker
from openmofi.link.linkability import count_names, read_linkability
from openmofi.link.weights import load_link_weights

CATALOGUE = """id,name,type,weight
tr,Turkey,country,9
nice,Nice,city,9
ny,New York,city,9
nyc,New York City,city,9
juice,apple juice,drink,1
"""


@pytest.fixture
def kb(tmp_path: Path) -> KnowledgeBase:
    (tmp_path / "c.csv").write_text(CATALOGUE)
    build_kb(tmp_path / "c.csv", out=tmp_path / "kb")
    return KnowledgeBase.open(tmp_path / "kb")


def of(kb: KnowledgeBase, name: str) -> float:
    counts = read_linkability(kb)
    assert counts is not None
    return float(counts.of(kb.keys([name]))[0])


CAPTIONS = [
    "a nice day in Turkey",
    "what a nice view of Turkey",
    "a nice hotel in Turkey and some rooms",
    "New York City, from above with a nice camera by Anna",
]


def test_names_used_as_words_are_found_out(kb):
    summary = count_names(kb, [CAPTIONS[:2], CAPTIONS[2:]])
    assert (summary.captions, summary.mentions, summary.names) == (4, 9, 4)
    assert of(kb, "Turkey") == pytest.approx(4 / 5)
    assert of(kb, "Nice") == pytest.approx(1 / 6)
    assert of(kb, "apple juice") == 0.5


def test_names_inside_longer_ones_are_counted(kb):
    count_names(kb, [["we saw New York City again"]])
    counts = read_linkability(kb)
    assert counts is not None
    assert counts.seen[kb.keys(["New York", "New York City", "Turkey"])].tolist() == [1, 1, 0]
    frequent = [(name.name, name.seen) for name in counts.most_frequent(kb, 5)]
    assert sorted(frequent) == [("new york", 1), ("new york city", 1)]


def test_counts_decide_about_nil(kb):
    plain = Linker(kb).link(["Nice, Turkey"])
    assert plain["linkability"].null_count == 2
    count_names(kb, [CAPTIONS])
    counted = Linker(kb).link(["Nice, Turkey"])
    assert counted["linkability"].to_pylist() == pytest.approx([1 / 6, 4 / 5])
    assert counted["score"][0].as_py() < plain["score"][0].as_py()
    assert counted["score"][1].as_py() > plain["score"][1].as_py()


def test_counts_change_the_fingerprint(kb):
    before = kb.fingerprint
    count_names(kb, [CAPTIONS])
    first = kb.fingerprint
    count_names(kb, [CAPTIONS[:1]])
    assert len({before, first, kb.fingerprint}) == 3


def test_types_weigh_as_the_weights_say(kb):
    weights = replace(load_link_weights(), types={"country": 2.0, "river": 1.0})
    table = Linker(kb, weights=weights).link(["Turkey", "Nice"])
    assert table["type"].to_pylist() == [2.0, 0.0]
    assert np.all(np.diff(table["score"].to_numpy()) < 0)
