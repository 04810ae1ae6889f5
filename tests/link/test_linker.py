from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from openmofi.config import LinkSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker
from openmofi.schema import CANDIDATES

CATALOGUE = """id,name,aliases,description,weight
tr,Turkey,Türkiye,country with a flag,9
bird,turkey,,bird for dinner,4
ny,New York,,,3
nyc,New York City,,,3
dc,"Washington, D.C.",,,3
who,The Who,,,3
if,If,,,3
year,1984,,,3
cn,中华人民共和国万岁,,,3
"""


def make_kb(folder: Path, catalogue: str = CATALOGUE) -> KnowledgeBase:
    (folder / "c.csv").write_text(catalogue)
    build_kb(folder / "c.csv", out=folder / "kb")
    return KnowledgeBase.open(folder / "kb")


@pytest.fixture(scope="module")
def kb(tmp_path_factory) -> KnowledgeBase:
    return make_kb(tmp_path_factory.mktemp("link"))


class WordCounts:
    """An encoder whose cosine grows with shared words."""

    def __init__(self):
        self.encoded: list[str] = []

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.encoded += texts
        words = ("country", "flag", "bird", "dinner", "bias")
        counts = [[text.count(word) for word in words[:-1]] + [0.1] for text in texts]
        return np.array(counts, np.float32)


def found(kb: KnowledgeBase, caption: str, **settings) -> list[tuple[str, str]]:
    table = Linker(kb, settings=LinkSettings(**settings)).link([caption])
    return list(zip(table["surface"].to_pylist(), table["id"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Turkey's flag", [("Turkey", "tr")]),
        ("TÜRKIYE!", [("TÜRKIYE", "tr")]),
        ("a new-york city cab", [("new-york city", "nyc")]),
        ("in New York. City lights", [("New York", "ny")]),
        ("Washington D.C. skyline", [("Washington D.C.", "dc")]),
        ("if the who play in 1984", [("the who", "who")]),
        ("中华人民共和国万岁", [("中华人民共和国万岁", "cn")]),
        ("TurkeyNew York", [("York", "")][:0]),
        ("nothing here", []),
    ],
)
def test_longest_names_are_found_and_cut_from_the_raw_caption(kb, caption, expected):
    assert found(kb, caption) == expected


def test_the_table_has_the_schema_and_spans_are_code_points(kb):
    captions = ["", None, "𝄞 Türkiye's New York"]
    table = Linker(kb).link(captions)
    assert table.schema.equals(CANDIDATES)
    spans = table.select(["row", "start", "end"]).to_pylist()
    assert [tuple(span.values()) for span in spans] == [(2, 2, 9), (2, 12, 20)]


def test_priors_sum_to_one_and_rank_counts_up(kb):
    table = Linker(kb).link(["turkey"], all_candidates=True)
    assert table["id"].to_pylist() == ["tr", "bird"]
    assert table["rank"].to_pylist() == [0, 1]
    assert table["prior"].to_pylist() == pytest.approx([2 / 3, 1 / 3])
    assert table["score"].equals(table["prior"])
    assert table["context"].null_count == 2


def test_max_candidates_renormalises(kb):
    table = Linker(kb, settings=LinkSettings(max_candidates=1)).link(["turkey"], True)
    assert table["prior"].to_pylist() == [1.0]


def test_short_names_can_be_ignored(kb):
    assert found(kb, "Turkey in New York", min_chars=7) == [("New York", "ny")]


def test_long_names_can_be_ignored(kb):
    assert found(kb, "New York City", max_words=2) == [("New York", "ny")]


def test_context_overrules_the_prior(kb):
    encoder = WordCounts()
    linker = Linker(kb, encoder=encoder)
    captions = ["turkey, a bird for dinner", "turkey, the country"]
    best = linker.link(captions)
    assert best["id"].to_pylist() == ["bird", "tr"]
    everything = linker.link(captions, all_candidates=True)
    assert everything["rank"].to_pylist() == [0, 1, 0, 1]
    assert sum(everything["score"].to_pylist()[:2]) == pytest.approx(1)
    assert everything["context"].null_count == 0


def test_context_weight_zero_leaves_the_prior(kb):
    linker = Linker(kb, encoder=WordCounts(), settings=LinkSettings(context_weight=0))
    table = linker.link(["turkey, a bird for dinner"], all_candidates=True)
    assert table["score"].to_pylist() == pytest.approx(table["prior"].to_pylist())


def test_entities_are_encoded_once(kb):
    encoder = WordCounts()
    linker = Linker(kb, encoder=encoder)
    for caption in ("turkey", "turkey in New York", "no mention"):
        linker.link([caption])
    entities = [text for text in encoder.encoded if ":" in text or text == "New York"]
    assert sorted(entities) == [
        "New York",
        "Turkey: country with a flag",
        "turkey: bird for dinner",
    ]
    assert "no mention" not in encoder.encoded


def test_arrow_captions_are_accepted(kb):
    captions = ["Turkey", None, "New York"] * 3000
    linker = Linker(kb)
    expected = linker.link(captions)
    chunked = pa.chunked_array([captions[:4000], captions[4000:]])
    assert linker.link(pa.array(captions)).equals(expected)
    assert linker.link(chunked).equals(expected)
    assert expected["row"].to_pylist()[-1] == 8999


@pytest.mark.parametrize("captions", [[], [""], [None], ["?"]])
def test_nothing_gives_an_empty_table(kb, captions):
    for encoder in (None, WordCounts()):
        table = Linker(kb, encoder=encoder).link(captions, all_candidates=True)
        assert (table.num_rows, table.schema) == (0, CANDIDATES)


@pytest.mark.parametrize("captions", ["Turkey", [5]])
def test_what_is_not_a_list_of_texts_is_refused(kb, captions):
    with pytest.raises(InputError):
        Linker(kb).link(captions)
