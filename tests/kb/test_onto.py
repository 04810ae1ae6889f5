"""A knowledge base built onto another is, byte for byte, that of all sources together."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openmofi.cli import app
from openmofi.config import KBSettings
from openmofi.errors import InputError, MismatchError
from openmofi.kb import KnowledgeBase, build_kb
from wikidata import content, item, of_class, write_dump

TERMS = [
    "Ann",
    "ann",
    "Ünn",
    "Unn",
    "B b",
    "oak chair -45 cm",
    "oak chair 45 cm",
    "C.",
    "😀",
    "a|b",
]
TEXTS = ["", "one", "other"]


def things(most: int) -> st.SearchStrategy[list[dict]]:
    """Items of a few ids and names, so that many are equal."""
    terms = st.sampled_from(TERMS)
    aliases = st.lists(terms, max_size=4)
    return st.lists(
        st.builds(
            lambda number, label, sites, english, german, text, kind: item(
                number,
                label,
                sites=sites,
                aliases={
                    "en": [{"value": name} for name in english],
                    "de": [{"value": name} for name in german],
                },
                descriptions={"en": {"value": text}},
                claims={"P31": of_class(kind)},
            ),
            st.integers(1, most),
            terms,
            st.integers(1, 4),
            aliases,
            aliases,
            st.sampled_from(TEXTS),
            st.integers(1, most),
        ),
        min_size=1,
        max_size=8,
    )


def catalogues(most: int) -> st.SearchStrategy[list[dict]]:
    """Rows of a catalogue, with weights that are no whole numbers."""
    row = st.fixed_dictionaries(
        {
            "id": st.integers(1, most).map(lambda n: f"Q{n}"),
            "name": st.sampled_from(["Ann", "Ünn", "B b", "oak chair -45 cm", "C."]),
            "aliases": st.lists(st.sampled_from(["Ann", "UNN", "x"]), max_size=2).map("|".join),
            "description": st.sampled_from(TEXTS),
            "weight": st.sampled_from(["0.1", "0.3", "2", "1.7", "16.35", "1234.567"]),
        }
    )
    return st.lists(row, min_size=1, max_size=6)


SOURCES = st.lists(st.one_of(things(7), catalogues(7)), min_size=1, max_size=2)


def ids_of(source: list[dict]) -> set[str]:
    return {row["id"] for row in source}


def write(folder: Path, name: str, sources: list[list[dict]], without: set[str]) -> list[Path]:
    """Writes the sources that have something left; a catalogue has no labels."""
    folder.mkdir()
    paths = []
    for number, rows in enumerate(sources):
        left = [row for row in rows if row["id"] not in without]
        if left and "labels" in left[0]:
            paths.append(write_dump(folder / f"{name}{number}.json", *left))
        elif left:
            path = folder / f"{name}{number}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in left))
            paths.append(path)
    return paths


def tables(kb: Path) -> dict[str, bytes]:
    found = content(kb)
    del found["rejects.jsonl"]  # of the sources that were read
    return found


SETTINGS = KBSettings(languages=("en", "de"), alias_weight=0.25, workers=1)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SOURCES, SOURCES, SOURCES)
def test_it_equals_a_build_from_all_sources(tmp_path_factory, first, second, third):
    folder = tmp_path_factory.mktemp("onto")
    old = write(folder / "1", "a", first, set())
    build_kb(old, out=folder / "kb", settings=SETTINGS)
    all_paths, base = [], folder / "kb"
    names = ("a", "b", "c")
    for step, newer in enumerate([second, third], 1):
        new = write(folder / f"new{step}", names[step], newer, set())
        summary = build_kb(new, out=folder / f"kb{step}", settings=SETTINGS, onto=base)
        base = folder / f"kb{step}"
        stages = [first, second, third][: step + 1]
        all_paths = []
        for number, stage in enumerate(stages):
            later = set().union(*(ids_of(s) for st_ in stages[number + 1 :] for s in st_))
            all_paths += write(folder / f"union{step}-{number}", names[number], stage, later)
        full = build_kb(all_paths, out=folder / f"full{step}", settings=SETTINGS)
        assert tables(base) == tables(full.out)
        assert summary.entities == full.entities
        assert summary.kept + len(set().union(*(ids_of(s) for s in newer))) == summary.entities


CATALOGUE = """id,name,aliases,description,weight
A1,Golden Delicious,golden,a yellow apple,5
A2,Royal Gala,gala,a red apple,5
P1,Conference,,a long pear,2
"""
NEWER = """id,name,aliases,description,weight
A2,Gala,gala|royal,a striped apple,9
K1,Hayward,kiwi,a green kiwi,3
"""


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "old.csv").write_text(CATALOGUE)
    (tmp_path / "new.csv").write_text(NEWER)
    build_kb(tmp_path / "old.csv", out=tmp_path / "kb")
    return tmp_path


def test_entities_are_replaced_whole_added_or_kept(shop):
    summary = build_kb(shop / "new.csv", out=shop / "next", onto=shop / "kb")
    assert (summary.kept, summary.replaced, summary.entities) == (2, 1, 4)
    kb = KnowledgeBase.open(shop / "next")
    assert kb.show("A2").description == "a striped apple"
    assert [c.id for c in kb.query("royal gala")] != ["A2"]  # the name of the older one is gone
    assert kb.show("P1").source == "old.csv"
    card = json.loads((shop / "next/card.json").read_text())["onto"]
    assert (card["kept"], card["replaced"]) == (2, 1)
    assert card["fingerprint"] == KnowledgeBase.open(shop / "kb").fingerprint


def test_a_knowledge_base_may_grow_in_place(shop):
    build_kb(shop / "new.csv", out=shop / "next", onto=shop / "kb")
    build_kb(shop / "new.csv", out=shop / "kb", onto=shop / "kb")
    assert content(shop / "next") == content(shop / "kb")


def test_the_same_source_again_changes_nothing(shop):
    before = content(shop / "kb")
    build_kb(shop / "old.csv", out=shop / "kb", onto=shop / "kb")
    assert content(shop / "kb") == before


def test_links_and_decisions_are_those_of_a_build_from_all_sources(tmp_path):
    old = [item(1, "Georgia", sites=4), item(2, "Tbilisi", sites=2), item(3, "Jordan", sites=3)]
    new = [item(4, "Georgia", sites=2), item(3, "Jordan", sites=5)]
    (tmp_path / "redirects").write_text("Q77\tQ1\nQ78\tQ4\n")
    (tmp_path / "anchors").write_text("Georgia\tQ1\t30\nGeorgia\tQ4\t9\nthe capital\tQ2\t5\n")
    (tmp_path / "before").write_text("Tbilisi\tQ2\t0.5\n")
    (tmp_path / "overrides").write_text("Georgia\tQ4\t0.9\nTbilisi\tQ2\t0.5\n")
    files = {name: str(tmp_path / name) for name in ("redirects", "anchors")}
    paths = [write_dump(tmp_path / f"{n}.json", *items) for n, items in enumerate((old, new))]
    first = KBSettings(**files, overrides=str(tmp_path / "before"))
    build_kb(paths[0], out=tmp_path / "kb", settings=first)
    second = KBSettings(**files, overrides=str(tmp_path / "overrides"))
    build_kb(paths[1], out=tmp_path / "next", settings=second, onto=tmp_path / "kb")
    write_dump(paths[0], *old[:2])
    full = build_kb(paths, out=tmp_path / "full", settings=second)
    assert tables(tmp_path / "next") == tables(full.out)
    assert KnowledgeBase.open(full.out).row_of("Q78") is not None


@pytest.mark.parametrize(
    ("before", "now", "flag"),
    [
        ({"languages": ("en", "de")}, {}, "--languages en,de"),
        ({"alias_weight": 0.5}, {}, "--alias-weight 0.5"),
        ({}, {"prior_gamma": 0.5}, "--prior-gamma 1"),
        ({"anchors": "links"}, {}, "--anchors .*links"),
    ],
)
def test_other_settings_are_refused(shop, before, now, flag):
    (shop / "links").write_text("apple\tA1\t3\n")
    before = {k: str(shop / v) if v == "links" else v for k, v in before.items()}
    build_kb(shop / "old.csv", out=shop / "kb", settings=KBSettings(**before))
    with pytest.raises(MismatchError, match=flag):
        build_kb(shop / "new.csv", out=shop / "x", settings=KBSettings(**now), onto=shop / "kb")
    assert not (shop / "x").exists()


def test_scaled_priors_and_no_knowledge_base_are_refused(shop):
    with pytest.raises(InputError, match="is not a knowledge base"):
        build_kb(shop / "new.csv", out=shop / "x", onto=shop)
    (shop / "huge.csv").write_text("id,name,weight\nA,a,1e29\nB,b,1\n")
    squares = KBSettings(prior_gamma=2)
    build_kb(shop / "huge.csv", out=shop / "huge", settings=squares)
    with pytest.raises(MismatchError, match="scaled down"):
        build_kb(shop / "new.csv", out=shop / "x", onto=shop / "huge", settings=squares)


def test_the_verb_says_what_was_kept(shop, capsys):
    line = ["kb", "build", f"{shop}/new.csv", "--onto", f"{shop}/kb", "--out", f"{shop}/x"]
    app(line, result_action="return_value")
    assert "2 entities of" in (said := capsys.readouterr().out)
    assert "1 are replaced, 1 are new" in said
