import json

import pytest

from openmofi.kb import KnowledgeBase, build_kb
from openmofi.kb.titles import plain_title


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Love (band)", "Love"),
        ("Washington_(state)", "Washington"),
        ("Love (and Other Lies) Live", "Love (and Other Lies) Live"),
        ("Love (Can Mean) Anything", "Love (Can Mean) Anything"),
        ("Love (and Other Lies) Live (album)", "Love (and Other Lies) Live"),
        ("Film (disambiguation) (2) (album)", "Film (disambiguation) (2)"),
        ("(What's the Story) Morning Glory?", "(What's the Story) Morning Glory?"),
        ("(500) Days of Summer", "(500) Days of Summer"),
        ("Crash (film (2004))", "Crash"),
        ("f(x) (group)", "f(x)"),
        ("f(x)", "f(x)"),
        ("(band)", "(band)"),
        ("Broken) (half)", "Broken)"),
        ("Smile :)", "Smile :)"),
        ("", ""),
    ],
)
def test_only_a_group_at_the_end_of_a_title_tells_articles_apart(title, name):
    assert plain_title(title) == name


def test_a_title_with_an_inner_group_gives_no_shorter_name(tmp_path):
    titles = {"Q1": "Love (and Other Lies) Live", "Q2": "Peace (song)"}
    items = (
        {
            "type": "item",
            "id": identifier,
            "labels": {"en": {"language": "en", "value": f"label of {identifier}"}},
            "sitelinks": {"enwiki": {"site": "enwiki", "title": title}},
        }
        for identifier, title in titles.items()
    )
    (tmp_path / "d.json").write_text("\n".join(map(json.dumps, items)))
    build_kb(tmp_path / "d.json", out=tmp_path / "kb")
    keys = KnowledgeBase.open(tmp_path / "kb").keys(["Love", "Peace", "Love and other lies live"])
    assert (keys >= 0).tolist() == [False, True, True]
