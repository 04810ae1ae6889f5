"""The maps of a report: what they show of which data, and that names do not cover each other."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmofi.evaluate.data import LabelledImages, file_places
from openmofi.evaluate.figures import Sample
from openmofi.evaluate.maps import vector_maps
from openmofi.evaluate.svg import ABOVE, BESIDE, labels


def _sample(rng, tmp_path, *, domains=(), classes=6, each=10):
    """Returns well separated classes; the domains, in equal parts, follow each other."""
    codes = np.repeat(np.arange(classes), each)
    vectors = np.eye(classes, 16)[codes] + 0.05 * rng.standard_normal((len(codes), 16))
    names = tuple(f"class {number}" for number in range(classes))
    of = tuple(np.repeat(domains, len(codes) // len(domains)).tolist()) if domains else ()
    files = [f"{number}.jpg" for number in range(len(codes))]
    dataset = LabelledImages(file_places(tmp_path, files), tuple(names[c] for c in codes))
    rows = np.arange(len(codes))
    return Sample(vectors.astype(np.float32), codes, rows, None, names, dataset, of)


def test_data_without_domains_has_one_map_by_class(rng, tmp_path):
    [drawn] = vector_maps(_sample(rng, tmp_path))
    assert drawn["title"] == "Map of the vectors"
    assert [name for name, _ in drawn["legend"]] == [f"class {n}" for n in range(6)]
    assert drawn["svg"].count("<circle") == 60


def test_domains_have_a_map_and_the_products_one_by_class(rng, tmp_path):
    shown = _sample(rng, tmp_path, domains=("landmarks", "products", "faces"))
    domains, products = vector_maps(shown)
    assert [name for name, _ in domains["legend"]] == ["faces", "landmarks", "products"]
    assert domains["svg"].count("<title>products</title>") == 20
    assert products["title"] == "Map of products by class"
    assert set(re.findall("<title>(.*?)</title>", products["svg"])) == {"class 2", "class 3"}


def test_without_products_the_largest_domain_is_drawn_by_class(rng, tmp_path):
    shown = _sample(rng, tmp_path, domains=("a", "b", "b"))
    assert [drawn["title"] for drawn in vector_maps(shown)][1] == "Map of b by class"


def test_a_map_is_the_same_each_time_and_one_colour_is_one_group(rng, tmp_path):
    shown = _sample(rng, tmp_path)
    [first], [second] = vector_maps(shown), vector_maps(shown)
    assert first == second
    points = re.findall(r'fill="(#\w+)"><title>(.*?)<', first["svg"])
    assert len(set(points)) == len({tone for tone, _ in points}) == 6


def test_two_classes_of_one_name_have_two_colours(rng, tmp_path):
    names = ("India", "India", "Golf", "Hotel", "Chad", "Peru")
    [drawn] = vector_maps(replace(_sample(rng, tmp_path), names=names))
    found = set(re.findall(r'fill="(#\w+)"><title>India<', drawn["svg"]))
    assert len(found) == 2
    assert [name for name, _ in drawn["legend"]].count("India") == 2


def test_many_images_are_drawn_from_evenly_spread_ones(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("openmofi.evaluate.maps._MOST_POINTS", 30)
    [drawn] = vector_maps(_sample(rng, tmp_path))
    assert drawn["svg"].count("<circle") == 30
    assert "30 of 60 images, evenly spread" in drawn["text"]


def test_classes_that_are_numbers_have_no_labels_but_titles(rng, tmp_path):
    shown = replace(_sample(rng, tmp_path), names=tuple("012345"))
    [drawn] = vector_maps(shown)
    assert "<text" not in drawn["svg"]
    assert "<title>5</title>" in drawn["svg"]


def test_of_too_few_images_there_is_no_map(rng, tmp_path):
    assert list(vector_maps(_sample(rng, tmp_path, classes=3, each=2))) == []


def test_more_classes_than_colours_have_no_legend(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("openmofi.evaluate.maps._MOST_KEYS", 5)
    [drawn] = vector_maps(_sample(rng, tmp_path))
    assert drawn["legend"] == []


PLACES = st.lists(
    st.tuples(st.text("ab<", min_size=1, max_size=30), st.floats(-20, 320), st.floats(-20, 220)),
    max_size=12,
)


@pytest.mark.parametrize("offsets", [ABOVE, BESIDE], ids=["above", "beside"])
@given(PLACES)
def test_labels_neither_cover_each_other_nor_leave_the_drawing(offsets, wanted):
    boxes = []
    for text in labels(wanted, offsets, width=300, height=200):
        x, y, anchor, said = re.fullmatch(
            r'<text x="(.*?)" y="(.*?)" text-anchor="(\w+)">(.*)</text>', text
        ).groups()
        wide = 6 * len(said.replace("&lt;", "<"))
        left = float(x) - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        boxes.append((left, float(y) - 10, left + wide, float(y) + 3))
    for i, one in enumerate(boxes):
        assert min(one[:2]) > -0.1
        assert one[2] < 300.1
        assert one[3] < 200.1
        for other in boxes[:i]:
            apart = max(one[0], other[0]) - min(one[2], other[2])
            assert max(apart, max(one[1], other[1]) - min(one[3], other[3])) > -0.2


def test_a_label_gives_way_to_points_and_the_first_wins():
    one = labels([("first", 50, 50), ("second", 50, 50)], BESIDE, width=200, height=100)
    assert 'x="59.0" y="54.0" text-anchor="start">first' in one[0]
    assert 'text-anchor="end">second' in one[1]
    assert "end" in labels([("a", 50, 50)], BESIDE, width=200, height=100, taken=[(62, 50)])[0]
