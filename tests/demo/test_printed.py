"""The world with captions printed into its photos: what changes, what does not, what is written."""

import io
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import jpeg
from openmofi.demo.captions import Caption
from openmofi.demo.entities import WORLD, by_id
from openmofi.demo.flags import draw_flag
from openmofi.demo.photograph import photograph
from openmofi.demo.printed import print_bar, print_text, text_to_print
from openmofi.demo.senses import SENSES
from openmofi.demo.world import draw_world
from openmofi.errors import SettingsError
from openmofi.label.text_regions import TextRegions

pytestmark = pytest.mark.slow

SEED = 7


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The same world without and with printed photos."""
    plain, printed = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("printed")
    summaries = [
        draw_world(plain, size="small", seed=SEED),
        draw_world(printed, size="small", seed=SEED, printed=0.3),
    ]
    return plain, printed, summaries


def members(world, suffix, split="shards"):
    with tarfile.open(world / split / "000000.tar") as tar:
        names = [name for name in tar.getnames() if name.endswith(suffix)]
        return {name.removesuffix(suffix): tar.extractfile(name).read() for name in names}


def truth(world):
    return {row["key"]: row for row in pq.read_table(world / "truth.parquet").to_pylist()}


def shoot(seed=0, size=64):
    return photograph(draw_flag(by_id["Q142"], 128), np.random.default_rng(seed), size=size)


def test_nothing_is_printed_unless_asked(worlds):
    plain, _, [summary, _] = worlds
    assert summary.num_printed == 0
    assert not any(row["printed"] for row in truth(plain).values())


def test_only_the_printed_photos_differ_from_those_of_the_plain_world(worlds):
    before, after = (members(world, ".jpg") for world in worlds[:2])
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {key for key, row in truth(worlds[1]).items() if row["printed"]}


def test_captions_and_test_photos_are_those_of_the_plain_world(worlds):
    plain, printed, _ = worlds
    assert members(plain, ".txt") == members(printed, ".txt")
    assert members(plain, ".jpg", "test") == members(printed, ".jpg", "test")


def test_about_the_asked_share_is_printed_and_counted(worlds):
    _, printed, [_, summary] = worlds
    count = sum(row["printed"] for row in truth(printed).values())
    assert count == summary.num_printed
    assert count / summary.num_train == pytest.approx(0.3, abs=0.1)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_an_impossible_share_is_refused(tmp_path, share):
    with pytest.raises(SettingsError, match="give 0 to 1"):
        draw_world(tmp_path, size="small", seed=0, printed=share)


def test_what_is_printed_is_what_the_caption_names_right_or_wrong():
    assert text_to_print(Caption("flag of Chad", "plain", (by_id["Q657"].id,))) == "Chad"
    wrong = Caption(SENSES[0].captions[0], "wrong", (SENSES[0].id,))
    assert text_to_print(wrong) == SENSES[0].name
    assert text_to_print(Caption("Chad or Peru?", "two", ("Q657", "Q419"))) == "Chad"


def test_a_caption_that_names_nothing_gives_its_first_words():
    assert text_to_print(Caption("beautiful photo, buy now", "none", ())) == "beautiful photo, buy"


def test_every_name_fits_into_a_photo():
    jpeg = Image.open(io.BytesIO(shoot())).convert("RGB")
    before = np.asarray(jpeg, np.float32)
    for number, name in enumerate(entity.name for entity in WORLD):
        printed = print_text(shoot(), name, np.random.default_rng(number))
        after = np.asarray(Image.open(io.BytesIO(printed)), np.float32)
        assert after.shape == before.shape
        assert 0.01 < (np.abs(after - before).mean(axis=2) > 40).mean() < 0.5


def test_a_seed_prints_the_same_bytes_and_another_seed_others():
    jpeg = shoot()
    first, again, other = (
        print_text(jpeg, "France", np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("text", ["a" * 300, "word " * 100, "日本"])
@pytest.mark.parametrize("size", [16, 64])
def test_any_text_can_be_printed(text, size):
    printed = print_text(shoot(size=size), text, np.random.default_rng(0))
    assert Image.open(io.BytesIO(printed)).size == (size, size)


def test_the_detector_finds_what_is_printed(worlds):
    pytest.importorskip("rapidocr", reason="the extra `ocr` is not installed")
    finder, photos = TextRegions(), members(worlds[1], ".jpg")
    keys = [key for key, row in truth(worlds[1]).items() if row["printed"]][:25]
    areas = [finder.find(Image.open(io.BytesIO(photos[key]))).area for key in keys]
    assert np.mean(np.array(areas) > 0.02) >= 0.9


@pytest.mark.parametrize("text", ["Chad", "Saint Vincent and the Grenadines"])
def test_a_text_in_the_bar_looks_the_same_on_every_photo(text):
    bars = []
    for colour in ((200, 30, 30), (30, 200, 90)):
        printed = print_bar(jpeg(colour, side=64), text, np.random.default_rng(0))
        pixels = np.asarray(Image.open(io.BytesIO(printed)), np.float32)
        assert abs(pixels[:40] - colour).mean() < 8  # the photo above is as it was
        bars.append(pixels[50:])
    assert abs(bars[0] - bars[1]).mean() < 8
    assert bars[0].max() > 150  # white letters
    assert text != "Chad" or bars[0][:, [0, -1]].max() < 120  # none of them cut off


def test_a_world_may_be_printed_in_another_way(tmp_path):
    draw_world(tmp_path / "bars", size="small", seed=SEED, printed=0.3, printer=print_bar)
    draw_world(tmp_path / "texts", size="small", seed=SEED, printed=0.3)
    printed = [
        {key for key, row in truth(tmp_path / name).items() if row["printed"]}
        for name in ("bars", "texts")
    ]
    assert printed[0] == printed[1]
    assert members(tmp_path / "bars", ".jpg") != members(tmp_path / "texts", ".jpg")
