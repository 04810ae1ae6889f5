import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from openmofi.images.phash import HASH_SIDE, distance, perceptual_hash


def _slow_hash(image):
    """The definition: reduce with Pillow, transform, compare with the median."""
    from scipy.fft import dctn

    small = image.convert("F").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR)
    low = dctn(np.asarray(small, dtype=np.float64), norm="ortho")[:8, :8].ravel()[1:]
    return sum(1 << (62 - i) for i in np.flatnonzero(low > np.median(low)).tolist())


def _scene(seed, size=(90, 120)):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def _recompressed(image, quality):
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


@pytest.mark.parametrize("size", [(90, 120), (32, 32), (64, 200), (31, 40), (20, 20)])
def test_the_hash_is_that_of_its_definition(size):
    scene = _scene(0, size)
    assert distance(perceptual_hash(scene), _slow_hash(scene)) <= 2


def test_different_images_are_far_apart():
    hashes = [perceptual_hash(_scene(seed)) for seed in range(20)]
    far = [distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i]]
    assert min(far) > 10
    assert 28 < np.mean(far) < 35


@pytest.mark.parametrize("size", [(32, 32), (400, 300)])
def test_an_image_without_structure_has_no_hash(size):
    stripes = Image.new("L", size, 200)
    stripes.paste(50, (0, 0, size[0] // 3, size[1]))
    assert perceptual_hash(Image.new("L", size, 90)) is None
    assert perceptual_hash(stripes) is None


def test_photos_keep_their_hash_when_resized_recompressed_and_brightened(shared):
    files = sorted((shared / "grocery" / "images").rglob("*.jpg"))[::45]
    moved = []
    for file in files:
        photo = Image.open(file).convert("RGB")
        small = photo.resize(
            (photo.width * 2 // 3, photo.height * 2 // 3), Image.Resampling.BICUBIC
        )
        bright = ImageEnhance.Brightness(photo).enhance(1.05)
        one = perceptual_hash(photo)
        for other in (_recompressed(small, 70), _recompressed(bright, 85)):
            moved.append(distance(one, perceptual_hash(other)))
    assert len(moved) >= 90
    assert max(moved) <= 4
    assert np.mean(np.array(moved) <= 3) > 0.97


def test_photos_of_different_scenes_are_told_apart(shared):
    files = sorted((shared / "grocery" / "images").rglob("*.jpg"))[::10]
    hashes = np.array([perceptual_hash(Image.open(file)) for file in files], np.uint64)
    far = np.bitwise_count(hashes[:, None] ^ hashes[None])[np.triu_indices(len(hashes), 1)]
    assert np.mean(far <= 3) < 1e-4
