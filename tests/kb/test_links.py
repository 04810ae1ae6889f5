"""Merged ids, counted links and decisions of the user."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.config import KBSettings
from openmofi.errors import InputError
from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.merge.name_table import decided, smoothed
from wikidata import item, write_dump

COUNTRY = item(230, "Georgia", sites=9, sitelinks={"enwiki": {"title": "Georgia (country)"}})
STATE = item(1428, "Georgia", sitelinks={"enwiki": {"title": "Georgia"}, "dewiki": {}, "xwiki": {}})
OTHER = item(5, "Tbilisi")


def built(folder: Path, **files: str) -> KnowledgeBase:
    """A KB of the three items; keyword arguments are settings, or contents of files."""
    settings = {}
    for name, text in files.items():
        if isinstance(text, str):
            (folder / name).write_text(text)
            text = str(folder / name)
        settings[name] = text
    dump = write_dump(folder / "d.json", COUNTRY, STATE, OTHER)
    build_kb(dump, out=folder / "kb", settings=KBSettings(**settings))
    return KnowledgeBase.open(folder / "kb")


def names(kb: KnowledgeBase, key: str) -> dict[str, tuple]:
    """By id: kind, count and weight of a name's rows."""
    rows = [
        row for row in pq.read_table(kb.path / "names.parquet").to_pylist() if row["key"] == key
    ]
    ids = kb.ids.to_pylist()
    return {ids[row["entity"]]: (row["kind"], row["count"], row["weight"]) for row in rows}


def links(kb: KnowledgeBase, kind: str) -> dict:
    return json.loads((kb.path / "card.json").read_text())["links"][kind]


def test_merged_ids_are_found(tmp_path):
    kb = built(tmp_path, redirects="Q77\tQ230\nQ78\tQ77\nQ79\tQ0\nQ5\tQ230\nodd line\n")
    assert kb.row_of("Q77") == kb.row_of("Q78") == kb.row_of("Q230")
    assert kb.row_of("Q79") is None
    assert kb.row_of("Q5") != kb.row_of("Q230")
    counts = links(kb, "redirects")
    assert (counts["lines"], counts["resolved"], counts["unresolved"]) == (5, 2, 1)
    assert counts["still_entities"] == 1
    assert counts["refused"] == {"bad_fields": 1}


def test_counted_links_are_smoothed_towards_the_prior(tmp_path):
    kb = built(tmp_path, anchors="Georgia\tGeorgia\t30\nGEORGIA\tGeorgia_(country)\t10\n")
    # Priors 1 + sitelinks: 2 of the country, 4 of the state; mu = 10.
    assert names(kb, "georgia") == {
        "Q1428": ("label", 30, pytest.approx((30 + 10 * 4 / 6) / 50)),
        "Q230": ("label", 10, pytest.approx((10 + 10 * 2 / 6) / 50)),
    }


def test_links_make_names(tmp_path):
    anchors = (
        "peach state\tQ1428\t2\nthe capital\tTbilisi\t1\nPeach State\tQ78\t5\nGeorgian\tQ230\t9\n"
    )
    kb = built(tmp_path, anchors=anchors, redirects="Q78\tQ1428\n")
    assert names(kb, "peach state") == {"Q1428": ("anchor", 7, pytest.approx(7 / 17))}
    assert names(kb, "the capital") == {}
    assert kb.query("peach state")[0].name == "Peach State"
    assert kb.query("georgian")[0].prior == 1


def test_links_that_lead_nowhere_are_counted(tmp_path):
    lines = "a\tNowhere\t3\na\tQ9\t3\nb\tQ230\tmany\nc\tQ5\t0\nd\tQ5\n!\tQ5\t3\nTbilisi\tQ5\t3\n"
    (tmp_path / "a.gz").write_bytes(gzip.compress(lines.encode() + b"\xff\tQ5\t1\n"))
    settings = KBSettings(anchors=str(tmp_path / "a.gz"))
    build_kb(write_dump(tmp_path / "d.json", OTHER), out=tmp_path / "kb", settings=settings)
    counts = json.loads((tmp_path / "kb" / "card.json").read_text())["links"]["anchors"]
    assert (counts["lines"], counts["resolved"], counts["unresolved"]) == (8, 1, 2)
    assert counts["refused"] == {"bad_count": 2, "bad_fields": 1, "no_name": 1, "not_utf8": 1}


def test_names_without_links_keep_their_proportions(tmp_path):
    kb = built(tmp_path, anchors="Tbilisi\tQ5\t3\n")
    weights = {i: weight for i, (_, _, weight) in names(kb, "georgia").items()}
    assert weights == {"Q1428": pytest.approx(4 / 6), "Q230": pytest.approx(2 / 6)}


def test_decisions_replace_probabilities(tmp_path):
    kb = built(tmp_path, overrides="georgia\tQ230\t0.9\nTbilisi\tQ1428\t0.25\n")
    found = {c.id: c.prior for c in kb.query("Georgia")}
    assert found == {"Q230": pytest.approx(0.9), "Q1428": pytest.approx(0.1)}
    found = {c.id: (c.prior, c.kind) for c in kb.query("Tbilisi")}
    assert found["Q1428"] == (pytest.approx(0.25), "override")
    assert found["Q5"] == (pytest.approx(0.75), "label")


def test_decisions_remove_candidates_and_names(tmp_path):
    kb = built(tmp_path, overrides="Georgia\tQ230\t0\ntbilisi\t-\n")
    assert [(c.id, c.prior) for c in kb.query("Georgia")] == [("Q1428", 1)]
    assert names(kb, "tbilisi") == {}
    assert kb.show("Q5").label == "Tbilisi"


def test_decisions_come_after_links(tmp_path):
    kb = built(tmp_path, anchors="Georgia\tQ1428\t900\n", overrides="Georgia\tQ230\t1\n")
    assert [(c.id, c.prior) for c in kb.query("Georgia")] == [("Q230", 1)]


def test_decisions_reach_merged_ids(tmp_path):
    kb = built(tmp_path, overrides="Georgia\tQ77\t1\n", redirects="Q77\tQ230\n")
    assert [c.id for c in kb.query("Georgia")] == ["Q230"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("Georgia\tQ230\t1\nGeorgia\tQ0\t0\n", "overrides, line 2: no entity has the id 'Q0'"),
        ("Georgia\tQ230\t1.5\n", "line 1: 'Georgia.tQ230.t1.5' is not name<TAB>id<TAB>p"),
        ("Georgia\tQ230\tnan\n", "is not name<TAB>id<TAB>p with p from 0 to 1"),
        ("Georgia\tQ230\n", "is not name<TAB>id<TAB>p"),
        ("\nGeorgia\n", "line 2: 'Georgia' is not"),
        ("!\tQ230\t1\n", "line 1: the name '!' has neither letters nor digits"),
        ("Georgia\tQ230\t.6\ngeorgia\tQ1428\t.6\n", "line 2: the p of 'georgia' sum to more"),
        ("Georgia\tQ230\t.2\ngeorgia\tQ230\t.2\n", "line 2: 'georgia' and Q230 were decided"),
        ("Georgia\t-\ngeorgia\tQ230\t1\n", "line 2: 'georgia' is removed in one line and given"),
        ("Georgia\tQ230\t1\ngeorgia\t-\n", "line 2: 'georgia' is removed in one line and given"),
    ],
)
def test_a_wrong_decision_is_explained(tmp_path, lines, message):
    with pytest.raises(InputError, match=message):
        built(tmp_path, overrides=lines)


@pytest.mark.parametrize("setting", ["redirects", "anchors", "overrides"])
def test_a_missing_file_is_explained(tmp_path, setting):
    with pytest.raises(InputError, match=f"--{setting} nowhere is not a file; expected one with"):
        build_kb(
            write_dump(tmp_path / "d.json", OTHER),
            out=tmp_path / "kb",
            settings=KBSettings(**{setting: "nowhere"}),
        )


def test_a_byte_order_mark_is_no_part_of_a_name_or_id(tmp_path):
    mark = "\ufeff"
    kb = built(
        tmp_path,
        redirects=f"{mark}Q77\tQ230\n",
        anchors=f"{mark}the capital\tQ5\t9\n",
        overrides=f"{mark}Tbilisi\tQ230\t1\n",
    )
    assert kb.row_of("Q77") == kb.row_of("Q230")
    assert names(kb, "the capital")["Q5"][0] == "anchor"
    assert [c.id for c in kb.query("tbilisi")] == ["Q230"]


PAIRS = st.lists(
    st.tuples(st.integers(0, 4), st.floats(0.01, 9), st.integers(0, 50)), min_size=1, max_size=12
)


@given(PAIRS, st.floats(0.5, 50))
def test_smoothing_equals_its_formula_term_by_term(pairs, mu):
    name, p0, count = map(np.array, zip(*pairs, strict=True))
    found = smoothed(name, p0, count, mu, 5)
    for i, m in enumerate(name):
        prior = p0[i] / sum(p for n, p, _ in pairs if n == m)
        expected = (count[i] + mu * prior) / (sum(c for n, _, c in pairs if n == m) + mu)
        assert found[i] == pytest.approx(expected)


@given(PAIRS, st.data())
def test_decided_shares_are_exact_and_the_sum_stays(pairs, data):
    name, weight, _ = map(np.array, zip(*pairs, strict=True))
    p = np.array([data.draw(st.sampled_from([-1, 0.0, 0.05])) for _ in pairs])
    found = decided(name, weight, p, 5)
    for m in set(name.tolist()):
        here = name == m
        total = weight[here].sum()
        assert found[here & (p >= 0)] == pytest.approx(p[here & (p >= 0)] * total)
        if np.any(here & (p < 0)):
            assert found[here].sum() == pytest.approx(total)
