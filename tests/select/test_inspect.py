"""The page that shows a selection: everything it must, in one file, nothing of it executable."""

import re

import pytest

import fruit
from conftest import write_tar
from openmofi.config import LabelSettings, SelectSettings
from openmofi.errors import InputError
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.select import select
from openmofi.select.report import inspect

EVIL = "<script>alert('apple')</script> & \"apple\""


@pytest.fixture(scope="module")
def i2e(tmp_path_factory, nano_dir):
    folder = tmp_path_factory.mktemp("inspect")
    evil = fruit.CATALOGUE.replace("a small green citrus", "<img src=x onerror=alert(1)>")
    build_kb(fruit.write_catalogue(folder, evil), out=folder / "kb")
    pairs = fruit.write_pairs(folder / "in")
    members = {"e.jpg": fruit.picture("red", 77), "e.txt": EVIL.encode()}
    members |= {"n.jpg": fruit.picture("red", 78), "n.txt": b"IMG_1234"}
    members |= {"c.jpg": b"damaged", "c.txt": b"<i>apple</i>"}
    write_tar(pairs / "9.tar", members)
    settings = LabelSettings(background=16)
    label(pairs, kb=folder / "kb", model=str(nano_dir), out=folder / "i2e", settings=settings)
    every = SelectSettings(threshold=-99.0, min_images=1)
    select(folder / "i2e", settings=every)
    return folder / "i2e"


@pytest.fixture(scope="module")
def page(i2e):
    return inspect(i2e).read_text(encoding="utf-8")


def test_it_shows_the_funnel_the_entities_and_the_reasons(page):
    for part in ("27", "Red Apple", "a round red fruit", "no_mention", "corrupt_image", "IMG_1234"):
        assert part in page
    assert "25 of 27 images" in re.sub(r"\s+", " ", page)


def test_it_shows_where_the_picture_changed_the_choice(page):
    section = page.split("The text said one thing")[1].split("Kept, by entity")[0]
    assert "None: the text's choice stood everywhere." in section or "with picture: <b>" in section


def test_captions_and_descriptions_are_text_and_not_markup(page):
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;apple" in page


def test_it_is_one_file_that_loads_nothing(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "url(" not in page


def test_every_kept_entity_is_listed_with_its_count(page, i2e):
    rows = re.findall(r"<code>(\w+)</code></td>\s*<td class=\"number\"[^>]*>(\d+)", page)
    assert {"red", "lime"} <= dict(rows).keys() <= {"red", "green", "lime"}
    assert sum(int(count) for _, count in rows) == 25


def test_few_pictures_make_a_small_page(i2e, tmp_path):
    assert inspect(i2e, out=tmp_path / "few.html", images=1).stat().st_size < 60_000


def test_a_page_can_be_drawn_when_the_pictures_are_gone(i2e, tmp_path):
    pairs, away = i2e.parent / "in", i2e.parent / "away"
    pairs.rename(away)
    try:
        page = inspect(i2e, out=tmp_path / "x.html").read_text()
    finally:
        away.rename(pairs)
    assert "no picture" in page


def test_a_selection_that_is_not_there_says_how_to_make_it(i2e):
    with pytest.raises(InputError, match=r"run `openmofi select .* --name strict`"):
        inspect(i2e, name="strict")
