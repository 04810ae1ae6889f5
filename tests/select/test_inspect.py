"""The page that shows a selection: everything it must, in one file, nothing of it executable."""

import re
from html.parser import HTMLParser

import pytest

import fruit
from labelled import candidate, pair, unseen, write_i2e
from openmofi.config import SelectSettings
from openmofi.errors import InputError, MismatchError
from openmofi.select import select
from openmofi.select.report import inspect

EVIL = "<script>alert('apple')</script> & \"apple\""
EVIL_KB = fruit.CATALOGUE.replace("a small green citrus", "<img src=x onerror=alert(1)>")
CHANGED = (candidate("red", text=0.9, z=0.0), candidate("green", text=0.1, z=5.0))
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "rect", "line", "circle"}


def _rows():
    """24 kept images, one whose choice the image changed, and one for every reason."""
    names = ("red", "green", "lime")
    rows = [pair(f"{i:02d}", candidate(names[i % 3], z=4.0)) for i in range(24)]
    rows += [
        pair("evil", candidate("red", z=5.0), caption=EVIL),
        pair("changed", *CHANGED),
        pair("nothing", caption="IMG_1234"),
        pair("broken", error="corrupt_image", caption="<i>apple</i>"),
        pair("wrong", candidate("lime", z=-3.0)),
        pair("twin", candidate("red", z=4.0, text=0.7), phash=6),
        pair("twin2", candidate("red", z=4.0, text=0.6), phash=7),
        pair("text", candidate("red", z=4.0), text=0.4, boxes=[[0.1, 0.2, 0.5, 0.6]]),
    ]
    return rows


def _write_images(folder, rows):
    for number, row in enumerate(rows):
        data = b"damaged" if row["error"] else fruit.photo("red", number)
        (folder / f"{row['key']}.jpg").write_bytes(data)


@pytest.fixture(scope="module")
def i2e(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    rows = _rows()
    _write_images(folder, rows)
    i2e = write_i2e(folder, rows[:20], rows[20:], catalogue=EVIL_KB)
    select(i2e, settings=SelectSettings(threshold=0.5, min_images=1, max_text_area=0.3))
    return i2e


@pytest.fixture(scope="module")
def page(i2e):
    return inspect(i2e).read_text(encoding="utf-8")


def _section(page, name):
    return page.split(f'id="{name}"')[1].split("<h2")[0]


def test_it_shows_the_funnel_with_every_reason(page):
    funnel = _section(page, "funnel")
    for reason in ("corrupt_image", "no_mention", "text_in_picture", "picture_disagrees"):
        assert re.search(rf'<td>{reason}</td><td class="number">1</td>', funnel)
    assert "27 of 32 images" in re.sub(r"\s+", " ", page)


def test_it_shows_where_the_image_changed_the_choice(page):
    changed = _section(page, "changed")
    assert "text: <b>Red Apple</b>" in changed
    assert "with image: <b>Green Apple</b>" in changed
    assert changed.count('class="card"') == 1


def test_refused_images_stand_under_their_reason(page):
    refused = _section(page, "refused")
    order = [refused.index(part) for part in ("corrupt_image", "no_mention", "duplicate_near")]
    assert order == sorted(order)
    assert "IMG_1234" in refused
    assert "no image<br>corrupt_image" in refused


def test_a_duplicate_is_shown_beside_what_it_repeats(page):
    duplicates = _section(page, "duplicates")
    assert duplicates.count("data:image/jpeg") == 2
    assert duplicates.index("twin2") < duplicates.index(">twin<")
    assert "duplicate_near, 1 bit<" in duplicates


def test_text_regions_are_drawn_over_their_image(page):
    text = _section(page, "text")
    assert '<rect x="0.100" y="0.200" width="0.400" height="0.400"/>' in text
    assert "40.0% text, refused" in text


def test_the_gallery_shows_candidates_and_scores(page):
    kept = _section(page, "kept")
    assert "score 1.00" in kept
    assert "Red Apple</b> <code>red</code>" in kept


def test_captions_and_descriptions_are_text_and_not_markup(page):
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;i&gt;apple" in page


def test_it_is_one_file_that_loads_nothing(page):
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "url(" not in page
    assert "@import" not in page


class _Nesting(HTMLParser):
    """Checks that every tag is closed in its place."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def test_its_tags_are_closed_and_its_links_lead_somewhere(page):
    nesting = _Nesting()
    nesting.feed(page)
    assert nesting.open == []
    assert set(re.findall(r'href="#(\w+)"', page)) == set(nesting.ids)


def test_every_kept_entity_is_listed_with_its_count(page):
    rows = re.findall(r'<code>(\w+)</code></td>\s*<td class="number">(\d+)', page)
    assert dict(rows) == {"red": "10", "green": "9", "lime": "8"}


def test_few_images_make_a_small_page(i2e, tmp_path):
    assert inspect(i2e, out=tmp_path / "few.html", images=1).stat().st_size < 60_000


def test_a_page_can_be_drawn_when_the_images_are_gone(tmp_path):
    i2e = write_i2e(tmp_path, _rows())
    select(i2e, settings=SelectSettings(threshold=0.5, min_images=1))
    page = inspect(i2e).read_text()
    assert "data:image" not in page
    assert "no image<br>image_missing" in page


def test_it_holds_without_encoder_hashes_or_text(tmp_path):
    i2e = write_i2e(tmp_path, [pair(str(i), unseen("red")) for i in range(6)])
    select(i2e)
    page = inspect(i2e).read_text()
    assert "The images were not looked at: these labels" in page
    assert "None was found." in _section(page, "duplicates")
    assert "None was found, or nobody looked" in _section(page, "text")


def test_the_calibration_is_drawn_with_its_threshold(tmp_path, rng):
    zs = [float(z) for z in rng.normal(4, 1, 60)] + [float(z) for z in rng.normal(0, 1, 60)]
    rows = [
        pair(str(i), candidate("red", z=z, other=float(rng.normal()))) for i, z in enumerate(zs)
    ]
    i2e = write_i2e(tmp_path, rows)
    summary = select(i2e, settings=SelectSettings(false_label_rate=0.1, min_images=1))
    page = inspect(i2e).read_text()
    assert f"threshold {summary.threshold:.2f}</text>" in page
    assert "Asked for 10% wrong labels" in page


def test_a_selection_that_is_not_there_says_how_to_make_it(i2e):
    with pytest.raises(InputError, match=r"run `openmofi select .* --name strict`"):
        inspect(i2e, name="strict")


def test_labels_made_anew_since_ask_for_another_selection(tmp_path):
    i2e = write_i2e(tmp_path, [pair("a", candidate("red", z=4.0))])
    select(i2e, settings=SelectSettings(threshold=0.5, min_images=1))
    next((i2e / "labels").iterdir()).rename(i2e / "labels/other.parquet")
    with pytest.raises(MismatchError, match="run `openmofi select"):
        inspect(i2e)
