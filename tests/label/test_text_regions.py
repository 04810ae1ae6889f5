"""The detector of text: what it must find, what it must leave alone, and what becomes of it."""

import io
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image, ImageDraw, ImageFont

import fruit
from conftest import write_tar
from openmofi.config import LabelSettings
from openmofi.demo.entities import by_id
from openmofi.demo.flags import draw_flag
from openmofi.demo.photograph import photograph
from openmofi.errors import InputError
from openmofi.images.decode import decode_image
from openmofi.kb import build_kb
from openmofi.label import label
from openmofi.label.text_regions import Regions, TextRegions
from openmofi.shards import committed_files

SETTINGS = LabelSettings(workers=1, text_regions=True)


@pytest.fixture(scope="module")
def finder():
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    return TextRegions()


def write(image, text, size, *, at=(4, 4), colour="white", edge="black"):
    font = ImageFont.load_default(size)
    ImageDraw.Draw(image).text(at, text, colour, font, stroke_width=1, stroke_fill=edge)
    return image


def blank(width=200, height=120, colour=(90, 130, 160)):
    return Image.new("RGB", (width, height), colour)


def flag_photo(identifier, seed, size=64):
    jpeg = photograph(draw_flag(by_id[identifier], 128), np.random.default_rng(seed), size=size)
    return decode_image(jpeg)[0]


def covered(boxes, cells=256):
    """Share of the unit square inside any of the boxes, counted cell by cell."""
    centres = (np.arange(cells) + 0.5) / cells
    inside = np.zeros((cells, cells), bool)
    for x0, y0, x1, y1 in boxes:
        columns = (centres >= x0) & (centres <= x1)
        inside |= columns[None, :] & ((centres >= y0) & (centres <= y1))[:, None]
    return inside.mean()


@pytest.mark.slow
@pytest.mark.parametrize("size", [14, 24, 40])
@pytest.mark.parametrize(
    ("colour", "edge"), [("white", "black"), ("black", "white"), ("red", "red"), ("yellow", "navy")]
)
def test_a_printed_caption_is_found(finder, size, colour, edge):
    found = finder.find(write(blank(), "Georgia", size, colour=colour, edge=edge))
    assert found.boxes
    assert found.area > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_a_name_printed_into_a_photo_of_64_pixels_is_found(finder, seed):
    photo = write(flag_photo("Q142", seed), "FRANCE", 12, at=(4, 46))
    found = finder.find(photo)
    assert any(y0 > 0.5 for _, y0, _, _ in found.boxes)


@pytest.mark.parametrize("name", ["00_Golden-Delicious_001", "18_Passion-Fruit_002"])
def test_a_caption_printed_into_a_real_photo_is_found_where_it_stands(finder, shared, name):
    photo = real_photo(shared, name)
    height = photo.height
    found = finder.find(write(photo, "fresh and cheap", 16, at=(8, height - 24)))
    assert any(y0 > 0.75 and x1 - x0 > 0.4 for x0, y0, x1, _ in found.boxes)


def real_photo(shared, name):
    path = shared / "grocery/images" / f"{name}.jpg"
    if not path.is_file():
        pytest.skip(f"the shared data lacks {path.name}")
    return decode_image(path)[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (3, 40), (64, 64), (500, 300)])
def test_a_plain_image_has_no_text(finder, size):
    assert finder.find(blank(*size)) == Regions(0.0, [])


def test_what_fills_a_small_photo_is_not_taken_for_a_letter(finder):
    # The detector reads a flag from edge to edge as one character.
    photos = [flag_photo(identifier, seed) for identifier in ("Q142", "Q17") for seed in range(6)]
    areas = [finder.find(photo).area for photo in photos]
    assert max(areas) <= 0.4
    assert np.mean(np.array(areas) > 0.01) <= 0.25


def test_boxes_lie_around_the_text_in_shares_of_the_image(finder):
    found = finder.find(write(blank(400, 200), "harbour", 40, at=(200, 120)))
    [[x0, y0, x1, y1]] = found.boxes
    width = ImageFont.load_default(40).getlength("harbour") / 400
    assert (x0, x1) == pytest.approx((0.5, 0.5 + width), abs=0.05)
    assert 0.55 < y0 < 0.7 < y1 < 0.9


def test_the_area_is_that_of_the_boxes_together(finder):
    image = write(write(blank(400, 300), "first line", 40, at=(20, 20)), "second", 40, at=(90, 200))
    found = finder.find(image)
    assert len(found.boxes) == 2
    assert found.area == pytest.approx(covered(found.boxes), abs=0.02)


def test_boxes_stay_inside_the_image_where_the_text_does_not(finder):
    found = finder.find(write(blank(200, 160), "a very long line of text", 24, at=(-10, 100)))
    assert found.boxes
    assert all(0 <= value <= 1 for box in found.boxes for value in box)


def test_the_image_itself_is_left_as_it_was(finder):
    image = write(blank(1000, 400), "text", 60)
    before = image.tobytes()
    finder.find(image)
    assert (image.size, image.tobytes()) == ((1000, 400), before)


# ---- the labels ---------------------------------------------------------------------------


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rows(finder, tmp_path_factory):
    """Labels of a printed, a plain, an unnamed and a sideways image, and of a damaged one."""
    folder = tmp_path_factory.mktemp("printed")
    kb = build_kb(fruit.write_catalogue(folder), out=folder / "kb").out
    upright = write(blank(240, 120), "LIME", 40, at=(100, 10))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    members = {"a.jpg": encoded(upright), "b.jpg": encoded(blank()), "c.jpg": encoded(upright)}
    members |= {"d.jpg": encoded(sideways, exif=turned), "e.jpg": b"no image"}
    captions = {"a": b"a lime", "b": b"a lime", "c": b"my holidays", "d": b"a lime", "e": b"a lime"}
    members |= {f"{key}.txt": caption for key, caption in captions.items()}
    write_tar(folder / "in.tar", members)
    label(folder / "in.tar", kb=kb, out=folder / "i2e", settings=SETTINGS)
    [file] = committed_files(folder / "i2e")
    return {row["key"]: row for row in pq.read_table(file).to_pylist()}


def test_labels_hold_the_area_and_the_boxes(rows):
    printed, plain = rows["a"], rows["b"]
    assert printed["text_area"] == pytest.approx(covered(printed["text_boxes"]), abs=0.02)
    assert all(0 <= value <= 1 for box in printed["text_boxes"] for value in box)
    assert (plain["text_area"], plain["text_boxes"]) == (0.0, [])


@pytest.mark.parametrize("key", ["c", "e"])
def test_an_image_that_was_not_opened_has_no_area_and_no_boxes(rows, key):
    assert (rows[key]["text_area"], rows[key]["text_boxes"]) == (None, None)


def test_boxes_of_a_phones_image_are_those_of_the_image_upright(rows):
    upright, sideways = rows["a"], rows["d"]
    assert (sideways["width"], sideways["height"]) == (240, 120)
    np.testing.assert_allclose(sideways["text_boxes"], upright["text_boxes"], atol=0.03)


def test_without_rapidocr_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(InputError) as raised:
        TextRegions()
    assert str(raised.value) == (
        "--text-regions needs RapidOCR; install it with: pip install 'openmofi[ocr]'."
    )


def test_nobody_looks_for_text_unless_asked(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    kb = build_kb(fruit.write_catalogue(tmp_path), out=tmp_path / "kb").out
    write_tar(tmp_path / "in.tar", {"a.jpg": encoded(blank()), "a.txt": b"a lime"})
    settings = replace(SETTINGS, text_regions=False)
    label(tmp_path / "in.tar", kb=kb, out=tmp_path / "i2e", settings=settings)
    [file] = committed_files(tmp_path / "i2e")
    assert pq.read_table(file)["text_area"].to_pylist() == [None]
