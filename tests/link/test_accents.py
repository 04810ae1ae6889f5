"""Names that differ in accents only: one name to the matcher, but not equally probable."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.codepoints import is_accented
from openmofi.kb.spelling import ACCENTED, PLAIN, spellings
from openmofi.kb.text import tokenise
from openmofi.link import Linker

NAMES = {
    "shoes": ["Nike"],
    "bookmaker": ["Niké"],
    "flower": ["rose"],
    "wine": ["rosé"],
    "city": ["Malmö", "Malmo"],
    "horse": ["Malmo"],
    "street": ["Große Straße"],
    "shop": ["Grosse Strasse"],
    "singer": ["Beyoncé"],
    "lake": ["Ёлкино"],
    "tree": ["Елкино"],
}


def linker_of(folder: Path, **weights: float) -> Linker:
    rows = [
        {"id": id, "name": name, "aliases": aliases, "weight": weights.get(id, 1)}
        for id, (name, *aliases) in NAMES.items()
    ]
    (folder / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    build_kb(folder / "c.jsonl", out=folder / "kb")
    return Linker(KnowledgeBase.open(folder / "kb"))


@pytest.fixture(scope="module")
def linker(tmp_path_factory) -> Linker:
    return linker_of(tmp_path_factory.mktemp("accents"), bookmaker=3, wine=3)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("my Nike shoes", "shoes"),
        ("my NIKE shoes", "shoes"),
        ("my Niké slip", "bookmaker"),
        ("my Nike\u0301 slip", "bookmaker"),
        ("my Nik&eacute; slip", "bookmaker"),
        ("A rose", "flower"),
        ("A glass of rosé", "wine"),
        ("in Malmö", "city"),
        ("an old Große Straße sign", "street"),
        ("an old Grosse Strasse sign", "shop"),
        ("here is Beyonce", "singer"),
        ("here is Beyoncë", "singer"),
        ("вот Ёлкино", "lake"),
        ("вот Елкино", "tree"),
    ],
)
def test_of_two_the_one_with_the_accents_of_the_mention_is_meant(linker, caption, expected):
    assert linker.link([caption])["id"].to_pylist() == [expected]


def test_who_is_known_enough_is_meant_without_accents_too(tmp_path):
    linker = linker_of(tmp_path, bookmaker=400)
    assert linker.link(["my Nike slip"])["id"].to_pylist() == ["bookmaker"]


def test_given_spans_are_read_with_their_accents(linker):
    spans = pa.table({"row": [0, 1], "start": [3, 3], "end": [7, 7]})
    found = linker.link_spans(["my Nike", "my Niké"], spans, all_candidates=True)
    assert found["id"].to_pylist() == ["shoes", "bookmaker", "bookmaker", "shoes"]
    share = found["prior"].to_numpy()
    # Weights of (1 + 1) and (1 + 3); the bookmaker without its accent 0.05, Nike with one 0.001.
    assert share == pytest.approx([2 / 2.2, 0.2 / 2.2, 4 / 4.002, 0.002 / 4.002])


def test_a_name_with_and_without_accents_says_nothing(linker):
    both, one = linker.kb.rows_of(["city", "horse"])
    found = linker.link(["in Malmo"], all_candidates=True)
    assert found["prior"].to_pylist() == [0.5, 0.5]
    assert sorted(linker.kb.rows_of(found["id"].to_pylist())) == sorted([both, one])


@pytest.mark.parametrize(
    ("name", "accents"),
    [
        *[
            ("Nike", PLAIN),
            ("Αθηνα", PLAIN),
            ("東京", PLAIN),
            ("ガ", PLAIN),
            ("हिन्दी", PLAIN),
            ("서울", PLAIN),
        ],
        *[("Niké", ACCENTED), ("Nike\u0301", ACCENTED), ("ØRESUND", ACCENTED), ("Łódź", ACCENTED)],
        *[("Straße", ACCENTED), ("STRAẞE", ACCENTED), ("İzmir", ACCENTED), ("Αθήνα", ACCENTED)],
    ],
)
def test_names_and_mentions_have_accents_alike(name, accents):
    assert spellings(pa.array([name]))[0] & (PLAIN | ACCENTED) == accents
    tokens = tokenise([f"o {name} o"])
    assert tokens.accented.any() == (accents == ACCENTED)


def test_names_and_mentions_have_accents_alike_whatever_the_character():
    letters = [c for c in map(chr, range(0x80, 0x2FA20)) if c.isalpha()]
    of_names = spellings(pa.array(letters)) & ACCENTED != 0
    differ = [c for c, found in zip(letters, of_names, strict=True) if found != is_accented(c)]
    assert differ == []
