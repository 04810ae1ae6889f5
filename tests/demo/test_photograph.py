import io

import numpy as np
import pytest
from PIL import Image

from openmofi.demo.entities import WORLD, by_id
from openmofi.demo.flags import draw_flag
from openmofi.demo.photograph import photograph


def shoot(identifier: str, seed: int, size: int = 64) -> Image.Image:
    flag = draw_flag(by_id[identifier], 128)
    return Image.open(io.BytesIO(photograph(flag, np.random.default_rng(seed), size=size)))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_a_photo_is_a_square_jpeg_of_the_asked_size(size):
    photo = shoot("Q43", 0, size)
    assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (size, size))


def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    flag = draw_flag(WORLD[0], 128)
    first, again, other = (photograph(flag, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_the_flag_is_in_the_image():
    # Japan's flag and a plain white one, photographed alike: red pixels tell them apart.
    for seed in range(20):
        with_disc = np.asarray(shoot("Q17", seed), np.float32)
        white = Image.new("RGBA", (128, 85), "white")
        jpeg = photograph(white, np.random.default_rng(seed))
        without = np.asarray(Image.open(io.BytesIO(jpeg)), np.float32)
        assert (np.abs(with_disc - without).mean(axis=2) > 25).mean() > 0.01


def test_photos_are_never_mirrored():
    # The green hoist of Ireland's flag lies left of its orange fly.
    lefts = []
    for seed in range(60):
        pixels = np.asarray(shoot("Q27", seed), np.float32)
        redness = pixels[..., 0] - pixels[..., 1]
        lefts.append(redness[:, :32].mean() < redness[:, 32:].mean())
    assert np.mean(lefts) > 0.8


def test_photos_of_one_flag_differ_more_than_a_little():
    photos = np.stack([np.asarray(shoot("Q142", seed), np.float32) for seed in range(12)])
    assert photos.std(axis=0).mean() > 30
