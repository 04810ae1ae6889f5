from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from openmofi.config import LinkSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker
from openmofi.link.weights import load_link_weights
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
    weights = replace(load_link_weights(), prior=1.0)
    table = Linker(kb, weights=weights).link(["Turkey"], all_candidates=True)
    assert table["id"].to_pylist() == ["tr", "bird"]
    assert table["rank"].to_pylist() == [0, 1]
    assert table["prior"].to_pylist() == pytest.approx([2 / 3, 1 / 3])
    score = table["score"].to_numpy()
    assert score / score.sum() == pytest.approx([2 / 3, 1 / 3])
    assert 0.8 < score.sum() < 1  # the rest is NIL
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
    assert sum(everything["score"].to_pylist()[:2]) == pytest.approx(1, abs=0.02)
    assert everything["context"].null_count == 0


def test_context_weight_zero_leaves_the_prior(kb):
    weights = replace(load_link_weights(), prior=1.0, context=0.0, nil=-100.0)
    linker = Linker(kb, encoder=WordCounts(), weights=weights)
    table = linker.link(["Turkey, a bird for dinner"], all_candidates=True)
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


def spans_of(captions: list[str], texts: list[str]) -> pa.Table:
    starts = [caption.index(text) for caption, text in zip(captions, texts, strict=True)]
    ends = [start + len(text) for start, text in zip(starts, texts, strict=True)]
    return pa.table({"row": range(len(captions)), "start": starts, "end": ends})


def test_given_spans_are_linked_as_a_whole_and_unknown_ones_left_out(kb):
    captions = ["\U0001f600 in New York City", "the Turkey's", "nobody here"]
    spans = spans_of(captions, ["New York", "Turkey", "nobody"])
    table = Linker(kb).link_spans(captions, spans.take(pa.array([2, 1, 0])))
    assert table["id"].to_pylist() == ["ny", "tr"]
    assert table["surface"].to_pylist() == ["New York", "Turkey"]
    assert table["start"].to_pylist() == [5, 4]


def test_given_spans_reach_beyond_a_batch(kb):
    captions = ["in Turkey"] * 10_000
    table = Linker(kb).link_spans(captions, spans_of(captions, ["Turkey"] * 10_000))
    assert table["row"].to_pylist() == list(range(10_000))
    assert set(table["surface"].to_pylist()) == {"Turkey"}


@pytest.mark.parametrize(
    ("caption", "agreement"),
    [
        ("we ate turkey in Paris", {"tr": -4, "bird": 1}),
        ("A turkey", {"tr": -4, "bird": 1}),
        ("we saw new york in Paris", {"ny": -1}),
        ("we flew to Turkey today", {"tr": 1, "bird": -1}),
        ("we ate turkey", {"tr": -1, "bird": 0}),
        ("we saw new york", {"ny": 0}),
        ("Turkey today", {"tr": 0, "bird": 0}),
        ("Best Turkey Recipes", {"tr": 0, "bird": 0}),
    ],
)
def test_the_case_of_a_mention_is_compared_with_the_names(kb, caption, agreement):
    table = Linker(kb).link([caption], all_candidates=True).to_pylist()
    assert {row["id"]: row["case"] for row in table} == agreement


def test_improbable_mentions_can_be_left_out(kb):
    captions = ["in New York", "he saw the who in Paris"]
    everything = Linker(kb).link(captions, all_candidates=True)
    kept = Linker(kb, settings=LinkSettings(min_score=0.85)).link(captions, all_candidates=True)
    assert everything["row"].unique().to_pylist() == [0, 1]
    assert kept.equals(everything.slice(0, len(kept)))
    assert kept["row"].unique().to_pylist() == [0]


class Detects:
    """A detector that knows one word."""

    def detect(self, captions: pa.StringArray) -> pa.Table:
        found = [(i, c.find("Turkey")) for i, c in enumerate(captions.to_pylist())]
        found = [(i, at) for i, at in found if at >= 0]
        rows, starts = [i for i, _ in found], [at for _, at in found]
        columns = {"row": rows, "start": starts, "end": [at + 6 for at in starts]}
        table = pa.table(columns, pa.schema([(name, pa.int32()) for name in columns]))
        labels = pa.array(["PLACE"] * len(rows), pa.string())
        scores = pa.array([0.9] * len(rows), pa.float32())
        return table.append_column("label", labels).append_column("score", scores)


def test_a_detector_makes_its_mentions_more_probable(kb):
    captions = ["in Turkey and New York"]
    plain = Linker(kb).link(captions)["score"].to_pylist()
    boosted = Linker(kb, detector=Detects()).link(captions)
    assert boosted["detected"].to_pylist() == pytest.approx([0.9, 0])
    assert boosted["score"][0].as_py() > plain[0]
    assert boosted["score"][1].as_py() < plain[1]


def test_lookup_answers_for_many_names_at_once(kb):
    table = kb.lookup(["turkey", "nothing", None, "NEW-YORK"])
    assert table["row"].to_pylist() == [0, 0, 3]
    assert table["id"].to_pylist() == ["tr", "bird", "ny"]
    assert table["prior"].to_pylist() == pytest.approx([2 / 3, 1 / 3, 1])


def spans(*found: tuple[int, int, int]) -> pa.Table:
    columns = zip(*found, strict=True) if found else ((), (), ())
    arrays = [pa.array(column, pa.int32()) for column in columns]
    return pa.table(arrays, ["row", "start", "end"])


def test_spans_may_cut_words_and_be_empty_or_unknown(kb):
    captions = ["inturkey", None, "", "Ankara"]
    found = Linker(kb).link_spans(captions, spans((0, 2, 8), (1, 0, 0), (2, 0, 0), (3, 0, 6)))
    assert found.select(["row", "start", "end", "surface"]).to_pylist() == [
        {"row": 0, "start": 2, "end": 8, "surface": "turkey"}
    ]
    assert Linker(kb).link_spans([None, ""], spans((0, 0, 0))).num_rows == 0
    assert Linker(kb).link_spans(["Turkey"], spans()).num_rows == 0


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((0, -5, 2), "-5-2 lies outside of caption 0"),
        ((0, 4, 2), "4-2 lies outside of caption 0"),
        ((0, 0, 99), "0-99 lies outside of caption 0, which has 6 characters"),
        ((1, 0, 1), "rows from 1 to 1, but there are 1 captions"),
        ((-1, 0, 1), "rows from -1 to -1"),
    ],
)
def test_spans_outside_their_captions_are_refused(kb, span, message):
    with pytest.raises(InputError, match=message):
        Linker(kb).link_spans(["Turkey"], spans(span))


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"row": [0], "start": [0]}),
        pa.table({"row": [0], "start": [0], "end": [None]}),
        pa.table({"row": [0], "start": [0], "end": [1.5]}),
    ],
)
def test_spans_need_three_columns_of_whole_numbers(kb, table):
    with pytest.raises(InputError, match="'end' is"):
        Linker(kb).link_spans(["Turkey"], table)


def test_unknown_spans_do_not_change_the_coherence_of_others(kb):
    captions = ["turkey, Nowhere and New York City"]
    linker = Linker(kb, encoder=WordCounts())
    two = linker.link_spans(captions, spans((0, 0, 6), (0, 20, 33)), True)
    three = linker.link_spans(captions, spans((0, 0, 6), (0, 8, 15), (0, 20, 33)), True)
    assert three.equals(two)


@pytest.mark.parametrize("captions", [pa.array([1.5]), pa.array([True]), iter(["a"]), {"a"}])
def test_what_holds_no_texts_in_order_is_refused(kb, captions):
    with pytest.raises(InputError, match=r"must be text|expects captions"):
        Linker(kb).link(captions)


@pytest.mark.parametrize(
    "captions",
    [
        pa.array(["Turkey", None]).dictionary_encode(),
        pa.array(["Turkey", None], pa.string_view()),
        pa.chunked_array([["x", "Turkey"], [None]])[1:],
    ],
)
def test_arrow_strings_of_all_kinds_are_read(kb, captions):
    assert Linker(kb).link(captions)["id"].to_pylist() == ["tr"]


def test_a_null_has_no_mentions_whatever_lies_below_it(kb):
    valid, offsets = pa.py_buffer(b"\0"), pa.py_buffer(np.array([0, 6], np.int64))
    hidden = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(b"Turkey"), valid, 1)
    assert Linker(kb).link(hidden).num_rows == 0
    assert kb.lookup(hidden).num_rows == 0


@pytest.mark.parametrize("wrong", [{"names": "Turkey"}, {"names": ["x"], "max_candidates": 0}])
def test_a_wrong_lookup_is_explained(kb, wrong):
    with pytest.raises(InputError, match=r"list of names|expected 1 to 30"):
        kb.lookup(**wrong)


def test_nothing_is_looked_up_in_nothing(kb):
    assert kb.lookup([]).num_rows == 0
    assert kb.lookup(pa.chunked_array([], pa.string())).num_rows == 0
