"""What is a word, and what a name, by how it is written: codes, stop words, cities called Split."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from openmofi.config import KBSettings
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.link import Linker, WordEncoder
from openmofi.link.stopwords import stop_words, words_anywhere


def linker_of(folder: Path, names: dict[str, list[str]], languages=("en",)) -> Linker:
    lines = [
        {"id": identifier, "name": name, "aliases": aliases, "weight": 10}
        for identifier, (name, *aliases) in names.items()
    ]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build_kb(folder / "c.jsonl", out=folder / "kb", settings=KBSettings(languages=languages))
    return Linker(KnowledgeBase.open(folder / "kb"))


CODES = "ET IL AL EL IN DE ES NO SO AM BE AT MY ME TO LA OR CM KG UK NA ZA SE VE DA MIT US WHO IT"


@pytest.fixture(scope="module")
def codes(tmp_path_factory) -> Linker:
    names = {code: [f"Name of {code}", code] for code in CODES.split()}
    names |= {"nasa": ["NASA"], "film": ["Us"]}
    return linker_of(tmp_path_factory.mktemp("codes"), names)


@pytest.mark.parametrize(
    "caption",
    [
        "une pomme et une poire, le chat de la maison",
        "il gatto nero, vista al mar, el gato",
        "ein Mann mit Hut, da so am See",
        "en bil som er i by, det var da",
        "kot na stole, pies za domem se",
        "o homem da casa, no mar e na praia",
        "bir kedi ve da bu",
        "45 cm, 5 kg, in my house to me",
        "No Smoking, Me and My Dog, El Toro, Al Pacino",
        "a photo of us at the beach with people who dance, it is",
        "UNE POMME ET UNE POIRE IN DE LA 45 CM",
        "WHO IS IT WITH US",
        "uk",
    ],
)
def test_codes_and_stop_words_are_not_meant_by_words(codes, caption):
    assert codes.link([caption], all_candidates=True)["id"].to_pylist() == []


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("ET, IL and AL on a map", ["ET", "IL", "AL"]),
        ("The US flag in the wind", ["US"]),
        ("US Flag", ["US"]),
        ("Flag of the US", ["US"]),
        ("WHO headquarters in Geneva", ["WHO"]),
        ("the IT department of MIT", ["IT", "MIT"]),
        ("Gate DE in Berlin", ["DE"]),
        ("A MAP OF THE UK", ["UK"]),
        ("nasa logo", ["nasa"]),
    ],
)
def test_codes_in_capitals_are_names(codes, caption, expected):
    assert codes.link([caption])["id"].to_pylist() == expected


def test_a_stop_word_in_capitals_is_what_is_written_so(codes):
    assert codes.link(["in the US today"], all_candidates=True)["id"].to_pylist() == ["US"]


def test_spans_that_are_given_may_be_words(codes):
    span = {"row": [0], "start": [0], "end": [2]}
    assert codes.link_spans(["et"], pa.table(span))["id"].to_pylist() == ["ET"]


@pytest.mark.parametrize(
    ("languages", "caption", "expected"),
    [
        (("de",), "das Haus und die Katze", []),
        (("de-at",), "das Haus und die Katze", []),
        (("fr",), "le chat et les chiens sur la table", []),
        (("ru",), "кот на столе", []),
        (("en",), "Katze und Hund", ["Und"]),
    ],
)
def test_stop_words_are_those_of_the_knowledge_base(tmp_path, languages, caption, expected):
    names = ("Und", "Die", "Das", "Les", "Sur", "Et", "La", "На")
    linker = linker_of(tmp_path, {name: [name] for name in names}, languages)
    assert linker.link([caption], all_candidates=True)["id"].to_pylist() == expected


def test_every_language_has_words_in_canonical_form():
    assert {"et", "il", "und", "och", "или", "cm"} <= words_anywhere()
    assert "" not in words_anywhere()
    assert not any(" " in word for word in words_anywhere())
    assert stop_words(["xx"]) < stop_words(["de", "xx"])


@pytest.fixture(scope="module")
def cities(tmp_path_factory) -> Linker:
    names = {"split": ["Split"], "cork": ["Cork"], "mobile": ["Mobile", "City of Mobile"]}
    names |= {"bird": ["crane"], "poet": ["Hart Crane", "Crane"], "both": ["Oak", "oak"]}
    return linker_of(tmp_path_factory.mktemp("cities"), names)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A split log, cork board and mobile phone", []),
        ("Old cork from Spain", []),
        ("The harbour of Split, seen from Cork", ["split", "cork"]),
        ("split, croatia", ["split"]),
        ("SPLIT AND CORK", ["split", "cork"]),
        ("Split and Cork", ["split", "cork"]),
        ("The city of mobile", ["mobile"]),
        ("a crane in the water", ["bird"]),
        ("A crane in the water", ["bird"]),
        ("we read Crane at school", ["poet"]),
        ("An oak, an Oak", ["both", "both"]),
    ],
)
def test_case_is_evidence_about_each_candidate(cities, caption, expected):
    assert cities.link([caption])["id"].to_pylist() == expected


def test_words_in_common_do_not_make_a_city_of_a_split_log(cities):
    linker = Linker(cities.kb, encoder=WordEncoder(cities.kb))
    assert linker.link(["A split log, cork board and mobile phone"]).num_rows == 0


@pytest.mark.parametrize(
    ("caption", "case"),
    [
        ("a crane in the water", {"bird": 0, "poet": -1}),
        ("A crane in the water", {"bird": 1, "poet": -4}),
        ("we read Crane at school", {"bird": -1, "poet": 1}),
        ("Crane", {"bird": 0, "poet": 0}),
        ("CRANE IN WATER", {"bird": 0, "poet": 0}),
        ("an oak", {"both": 0}),
        ("in Paris an oak", {"both": 1}),
        ("under this Oak", {"both": 0}),
        ("a cork", {"cork": 0}),
    ],
)
def test_the_term_of_each_candidate(cities, caption, case):
    found = cities.link([caption], all_candidates=True).to_pylist()
    assert {row["id"]: row["case"] for row in found} == case


def test_what_more_likely_means_nothing_is_among_all_candidates(cities):
    caption = "Some cork"
    assert cities.link([caption]).num_rows == 0
    assert cities.link([caption], all_candidates=True)["id"].to_pylist() == ["cork"]


def test_a_title_has_the_capital_of_the_label(tmp_path):
    items = [
        {
            "type": "item",
            "id": identifier,
            "labels": {"en": {"language": "en", "value": label}},
            "sitelinks": {"enwiki": {"site": "enwiki", "title": title}},
        }
        for identifier, label, title in (
            ("Q1", "motion image", "Film"),
            ("Q2", "The Wall", "Wall"),
        )
    ]
    (tmp_path / "d.json").write_text("\n".join(map(json.dumps, items)))
    build_kb(tmp_path / "d.json", out=tmp_path / "kb")
    kb = KnowledgeBase.open(tmp_path / "kb")
    assert [c.name for c in kb.query("film") + kb.query("wall")] == ["film", "Wall"]
