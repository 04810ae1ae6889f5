"""Filters and facets against a row-by-row reference; entities, types and names of an index."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexed import make_index, unit
from openmofi.errors import InputError, SettingsError
from openmofi.kb import build_kb
from openmofi.search import Filter, Searcher, Term
from openmofi.search.changes import set_map

NAMES = ["red", "green", "lime", "plum", "unknown"]
TYPES = {"red": ["apple", "fruit"], "green": ["apple"], "lime": ["fruit"], "plum": []}
CATALOGUE = """id,name,aliases,description,weight,type
red,Red Apple,apple|pomme,a round red fruit,3,apple|fruit
green,Green Apple,apple,a round green fruit,1,apple
lime,Lime,,a small green citrus,2,fruit
plum,Plum,,a small purple fruit,2,
"""
COUNT = 200


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    labels = [sorted(set(rng.choice(NAMES, size=rng.integers(0, 4)))) for _ in range(COUNT)]
    scores = [rng.random(len(names)).round(3).tolist() for names in labels]
    scores[3:9] = [None] * 6
    hosts = ["https://a.org/x.jpg", "http://b.org:80/y", "", "no address"]
    return {
        "entities": labels,
        "label_scores": scores,
        "text_area": [None if i % 7 == 0 else (i % 10) / 10 for i in range(COUNT)],
        "url": [hosts[i % 4] for i in range(COUNT)],
    }


@pytest.fixture(scope="module")
def index(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filters")
    (folder / "fruit.csv").write_text(CATALOGUE)
    kb = build_kb(folder / "fruit.csv", out=folder / "kb").out
    vectors = unit(np.random.default_rng(6).standard_normal((COUNT, 8)))
    index = make_index(folder, vectors, kb=kb, **table)
    set_map(index, np.random.default_rng(7).random((COUNT, 2)))
    return type(index).open(index.folder)


def _passes(table, row, wanted, points):
    names = table["entities"][row] or []
    given_scores = table["label_scores"][row]
    scores = given_scores if given_scores is not None else [None] * len(names)
    least = wanted.min_label_score
    sure = [n for n, s in zip(names, scores, strict=True) if least is None or (s or -1) >= least]
    kinds = {kind for name in sure for kind in TYPES.get(name, [])}
    source = {0: "a.org", 1: "b.org"}.get(row % 4, "a.tar")
    area = table["text_area"][row]
    x, y = points[row]
    return (
        (least is None or bool(sure))
        and (not wanted.entities or bool({*sure} & {*wanted.entities}))
        and not {*names} & {*wanted.not_entities}
        and (not wanted.types or bool(kinds & {*wanted.types}))
        and (not wanted.sources or source in wanted.sources)
        and (wanted.max_text_area is None or (area is not None and area <= wanted.max_text_area))
        and (not wanted.lasso or (x < 0.5 and y < 0.5))
    )


some = lambda names: st.lists(st.sampled_from(names), max_size=2).map(tuple)  # noqa: E731
filters = st.builds(
    Filter,
    entities=some([*NAMES, "nobody"]),
    not_entities=some(NAMES),
    types=some(["apple", "fruit", "none"]),
    sources=some(["a.org", "b.org", "a.tar", "c.org"]),
    min_label_score=st.none() | st.sampled_from([0.0, 0.25, 0.9]),
    max_text_area=st.none() | st.sampled_from([0.0, 0.5]),
    lasso=st.sampled_from([(), ((-1, -1), (-1, 0.5), (0.5, 0.5), (0.5, -1))]),
)


@settings(max_examples=150, deadline=None)
@given(wanted=filters)
def test_the_rows_that_pass_are_those_of_the_reference(index, table, wanted):
    points = index.map_points()
    expected = [_passes(table, row, wanted, points) for row in range(COUNT)]
    passing = index.passing(wanted)
    assert ([True] * COUNT if passing is None else passing.tolist()) == expected


@settings(max_examples=50, deadline=None)
@given(rows=st.sets(st.integers(0, COUNT - 1)))
def test_facets_count_each_row_once(index, table, rows):
    facets = ("entities", "types", "sources")
    found = {facet: index.facet(np.array(sorted(rows), np.int64), facet) for facet in facets}
    for name, count in found["entities"]:
        assert count == sum(name in table["entities"][row] for row in rows)
    kinds = [{k for n in table["entities"][r] for k in TYPES.get(n, [])} for r in rows]
    assert dict(found["types"]) == {
        kind: count for kind in ("apple", "fruit") if (count := sum(kind in k for k in kinds))
    }
    assert sum(count for _, count in found["sources"]) == len(rows)


def test_entities_carry_the_names_and_types_of_the_knowledge_base(index):
    rows = {row["id"]: row for row in index.entities.to_pylist()}
    assert (rows["red"]["label"], rows["red"]["types"]) == ("Red Apple", ["apple", "fruit"])
    assert (rows["unknown"]["label"], rows["unknown"]["types"]) == ("unknown", [])
    images = index.entities["images"].to_pylist()
    assert images == sorted(images, reverse=True)
    assert dict(zip(index.entities["id"].to_pylist(), images, strict=True)) == index.entity_counts()


def test_browsing_shows_each_entity_in_turn_with_its_best_label_first(index, table):
    hits = Searcher(index).search(k=COUNT).hits
    assert sorted(hit.row for hit in hits) == list(range(COUNT))
    firsts = [table["entities"][hit.row][0] for hit in hits[:5]]
    assert sorted(firsts) == sorted(NAMES)
    for hit in hits[:5]:
        own = [
            table["label_scores"][row][0]
            for row in range(COUNT)
            if table["entities"][row][:1] == list(hit.entities[:1]) and table["label_scores"][row]
        ]
        assert hit.label_scores[0] == pytest.approx(max(own))


def test_pages_continue_each_other(index):
    searcher, terms = Searcher(index), [Term("row", 5), Term("entity", "Lime", -0.4)]
    whole = searcher.search(terms, k=30)
    pages = [searcher.search(terms, k=10, offset=offset).hits for offset in (0, 10, 20)]
    assert [hit for page in pages for hit in page] == whole.hits
    assert whole.total == COUNT


def test_a_mix_is_the_weighted_sum_of_unit_vectors(index):
    terms = [Term("row", 1, 2.0), Term("vector", np.full(8, 9.0)), Term("row", 2, -0.5)]
    one, other = index.vectors(np.array([1, 2]))
    expected = 2 * one + np.full(8, 8**-0.5) - 0.5 * other
    mixed = Searcher(index).vector(terms)
    assert mixed == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)


def test_a_least_score_cuts_the_far_ones_off(index):
    found = Searcher(index).search([Term("row", 1)], k=COUNT, min_score=0.5).hits
    every = Searcher(index).search([Term("row", 1)], k=COUNT).hits
    assert found == [hit for hit in every if hit.score >= 0.5]
    assert 0 < len(found) < COUNT


@pytest.mark.parametrize("k", [1, 5, COUNT])
def test_the_total_counts_what_is_near_enough_however_few_are_shown(index, k):
    wanted = Filter(not_entities=("red",))
    scores = [
        hit.score for hit in Searcher(index).search([Term("row", 1)], filter=wanted, k=COUNT).hits
    ]
    for least in (-1.0, 0.0, 0.31, 0.999):
        found = Searcher(index).search([Term("row", 1)], filter=wanted, k=k, min_score=least)
        assert found.total == sum(score >= least for score in scores)
        assert len(found.hits) == min(k, found.total)


def test_a_least_score_is_enough_when_it_is_reached_exactly(index):
    query = index.vectors(np.array([1]))[0]
    _, scores, _ = index.nearest(query, k=7)
    least = float(scores[6])
    found = Searcher(index).search([Term("vector", query)], k=7, min_score=least)
    assert (len(found.hits), found.total) == (7, 7)


def test_what_cannot_be_asked_is_refused_in_a_sentence(index):
    searcher = Searcher(index)
    with pytest.raises(InputError, match="cancel each other out"):
        searcher.search([Term("row", 1), Term("row", 1, -1.0)])
    with pytest.raises(InputError, match="No image of the index is labelled 'banana'"):
        searcher.search([Term("entity", "banana")])
    with pytest.raises(InputError, match="has no row 200; expected 0 to 199"):
        searcher.search([Term("row", COUNT)])
    with pytest.raises(SettingsError, match="at least 3 corners, not 2"):
        Filter(lasso=((0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(SettingsError, match="cannot be 0 and -1"):
        searcher.search(k=0, offset=-1)
