"""What the report's page shows: marks of right and wrong, worst queries, published figures."""

import json
import re

import numpy as np
import pytest

import fruit
from openmofi.evaluate import evaluate
from openmofi.evaluate.report import write_report
from openmofi.evaluate.results import Scores


def _page(folder, vectors):
    """Returns the page of six images, two of each fruit, with these vectors."""
    data = folder / "data"
    for number in range(6):
        place = data / fruit.NAMES[number // 2]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(fruit.photo(place.name, number))
    np.save(folder / "e.npy", np.asarray(vectors, np.float32))
    evaluate(data={"d": data}, embeddings=folder / "e.npy", out=folder / "out")
    return (folder / "out/report.html").read_text()


APART = np.repeat(np.eye(3), 2, axis=0)
MIXED = APART[[0, 1, 2, 3, 4, 0]]
"""The last image looks like the first two, which are of another fruit."""


def test_queries_whose_answers_are_perfect_are_no_worst_ones(tmp_path):
    assert "Worst queries" not in _page(tmp_path, APART)


def test_worst_queries_are_those_that_miss_something_worst_first(tmp_path):
    page = _page(tmp_path, MIXED)
    worst = page[page.index("Worst queries") :]
    shown = [float(value) for value in re.findall(r"AP ([\d.]+)<", worst)]
    assert shown == sorted(shown)
    assert len(shown) == 4  # the two of the last fruit, and the two that the last one looks like
    assert max(shown) < 1


@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_right_and_wrong_are_said_in_words_and_by_marks(tmp_path, kind):
    page = _page(tmp_path, MIXED)
    assert f'<figcaption class="{kind}">' in page
    assert f"figcaption.{kind}::before" in page
    [*said] = re.findall(rf'alt="[^"]+: {kind}" title="[^"]+: {kind}" [^>]*class="{kind}"', page)
    assert said
    assert len(said) == page.count(f'class="{kind}">') - page.count(f'<figcaption class="{kind}">')


def test_words_in_tables_are_not_broken(tmp_path):
    rules = _page(tmp_path, APART)
    assert "td, th { overflow-wrap: normal; }" in rules
    assert re.search(r"th, td:first-child \{ white-space: nowrap; \}", rules)
    for table in re.finditer("<table>", rules):
        assert rules[: table.start()].endswith('<div class="wide">')


MAPS = {"map_easy": 0.1, "map_medium": 0.2, "map_hard": 0.3}
OXFORD, PARIS = (
    Scores("m", name, 1, 0, 0, MAPS, "revisited", {"truth": name})
    for name in ("roxford5k", "rparis6k")
)


def _beside(folder, *scores):
    """Returns who is named beside these scores in a report."""
    page = write_report(folder, scores, []).read_text()
    everyone = ("R101-GeM on ROxford", "R101-GeM on RParis", "MOFI H/14")
    return [who for who in everyone if who in page]


def test_published_figures_stand_beside_their_own_benchmark_only(tmp_path):
    assert _beside(tmp_path, OXFORD) == ["R101-GeM on ROxford"]
    assert _beside(tmp_path, PARIS) == ["R101-GeM on RParis"]
    assert len(_beside(tmp_path, OXFORD, PARIS)) == 2
    gpr = Scores("m", "mine", 1, 0, 0, {"gpr1200_all": 0.5}, "gpr1200")
    assert _beside(tmp_path, gpr) == ["MOFI H/14"]
    assert _beside(tmp_path, Scores("m", "d", 1, 0, 0, MAPS | gpr.metrics, "mean")) == []


def test_scores_with_distractors_stand_beside_nothing_published(tmp_path):
    notes = OXFORD.notes | {"distractors": 1_001_001}
    harder = Scores("m", "both", 1, 0, 0, MAPS, "revisited", notes)
    assert _beside(tmp_path, harder) == []
    assert _beside(tmp_path, harder, OXFORD) == ["R101-GeM on ROxford"]
    page = (tmp_path / "report.html").read_text()
    assert "<b>m</b> on both" not in page
    assert "<b>m</b> on roxford5k" in page


def test_both_pairs_of_the_paper_stand_beside_gpr1200(tmp_path):
    gpr = Scores("m", "mine", 1, 0, 0, {"gpr1200_all": 0.5}, "gpr1200")
    page = write_report(tmp_path, [gpr], []).read_text()
    found = re.findall(r"<td>([^<]*)</td><td class=.number.>(0\.\d+)</td>", page)
    assert {("MOFI", "0.8666"), ("OpenAI CLIP", "0.7219")} <= set(found)
    other = {("MOFI, Apple&#39;s page", "0.8359"), ("OpenAI CLIP, Apple&#39;s page", "0.6733")}
    assert other <= set(found)


def test_the_nearest_image_of_evenly_spread_queries_is_shown_and_kept(tmp_path):
    page = _page(tmp_path, MIXED)
    rows = json.loads((tmp_path / "out/top1.json").read_text())["d"]
    assert [row["found"]["kind"] for row in rows] == ["right"] * 4 + ["wrong"] * 2
    assert "4 of these 6 are right" in page
    assert len({row["key"] for row in rows}) == 6


def test_a_report_has_the_names_of_domains(tmp_path):
    _page(tmp_path, APART)
    files = sorted((tmp_path / "data").glob("*/*.jpg"), key=lambda file: file.name)
    lines = [f"data/{f.parent.name}/{f.name},{f.parent.name},{int(f.stem) % 2}" for f in files]
    (tmp_path / "test.csv").write_text("\n".join(["file,label,domain", *lines]))
    embeddings, out = tmp_path / "e.npy", tmp_path / "out"
    evaluate(data={"d": tmp_path / "test.csv"}, embeddings=embeddings, out=out)
    [row, *_] = json.loads((out / "top1.json").read_text())["d"]
    assert row["query"]["name"] == "0: red"
