import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fruit
from conftest import jpeg
from openmofi.images.look import SeenImage, decode, look
from openmofi.images.phash import distance
from openmofi.images.thumbnails import thumbnail
from openmofi.model.transform import Transform
from openmofi.pairs import ImageReader
from openmofi.refused import Refused

ROW = {"shard": "", "offset": -1, "size": 0, "path": "a.jpg"}


def _photo(size, kind="JPEG"):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("name", fruit.BAD)
@pytest.mark.parametrize("transform", [None, Transform(32)])
def test_each_kind_of_damage_has_its_reason(name, transform):
    data, reason = fruit.BAD[name]
    assert look(data, transform) == Refused(reason)


@pytest.mark.parametrize("name", fruit.GOOD)
@pytest.mark.parametrize("transform", [None, Transform(32)])
def test_unusual_images_are_seen(name, transform):
    seen = look(fruit.GOOD[name], transform)
    assert isinstance(seen, SeenImage)
    assert seen.sha256 == hashlib.sha256(fruit.GOOD[name]).digest()
    assert (seen.pixels is None) == (transform is None)


@pytest.mark.parametrize("size", [(40, 40), (300, 200), (64, 900)])
def test_look_and_decode_give_the_same_pixels(tmp_path, size):
    (tmp_path / "a.jpg").write_bytes(_photo(size))
    for keep_image in (False, True):
        seen = look(_photo(size), Transform(32), keep_image=keep_image)
        pixels, own_size = decode(ImageReader(tmp_path).read, ROW, Transform(32))
        assert own_size == seen.size == size
        assert np.array_equal(seen.pixels, pixels)


@pytest.mark.parametrize("transform", [None, Transform(32)])
def test_the_image_is_kept_large_enough_for_text(transform):
    seen = look(_photo((3200, 1600)), transform, keep_image=True)
    assert max(seen.image.size) >= 736
    assert look(_photo((200, 100)), transform, keep_image=True).image.size == (200, 100)
    assert look(_photo((200, 100)), transform).image is None


def test_the_hash_hardly_depends_on_the_encoder():
    photo = _photo((300, 200))
    hashes = [look(photo, transform).phash for transform in (None, Transform(64), Transform(16))]
    assert all(distance(hashes[0], other) <= 2 for other in hashes)


def test_one_colour_has_no_perceptual_hash():
    assert look(jpeg(), None).phash is None


def test_of_an_animation_the_first_frame_counts():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    seen = look(buffer.getvalue(), Transform(8))
    assert seen.size == (20, 10)
    assert tuple(seen.pixels[4, 4]) == (255, 0, 0)


def test_a_vanished_image_is_missing(tmp_path):
    read = ImageReader(tmp_path).read
    assert decode(read, ROW, Transform(8)) == Refused("image_missing")
    assert decode(read, ROW | {"path": "a\0b"}, Transform(8)) == Refused("image_missing")


@pytest.mark.parametrize("error", [KeyError, TypeError, ZeroDivisionError, MemoryError])
def test_an_error_that_nobody_foresaw_costs_one_row(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error("odd")

    (tmp_path / "a.jpg").write_bytes(jpeg())
    reader = ImageReader(tmp_path)
    for module in ("look", "thumbnails"):
        monkeypatch.setattr(f"openmofi.images.{module}.decode_image", fail)
    assert look(fruit.GOOD["cmyk"], None) == Refused(error.__name__)
    assert decode(reader.read, ROW, Transform(8)) == Refused(error.__name__)
    assert thumbnail(reader.read, ROW) == ""
    monkeypatch.setattr(reader, "read", fail)
    assert decode(reader.read, ROW, Transform(8)) == Refused(error.__name__)


def test_looking_at_images_needs_no_torch():
    code = "import sys, openmofi.images.look, openmofi.pairs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
