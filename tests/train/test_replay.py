"""Stored changes of images, made again, against torchvision's documented rules in NumPy."""

import io

import numpy as np
import pytest
from PIL import Image

from conftest import jpeg
from openmofi.refused import Refused
from openmofi.train.replay import OPERATIONS, Version, replay

NAMES = list(OPERATIONS)
SIDE = 224
# What torchvision's RandAugment() draws: magnitude 9 of 31 bins, on 224 pixels.
MAGNITUDES = {
    **{"Identity": 0.0, "ShearX": 0.09, "ShearY": -0.09, "TranslateX": -30.45317268371582},
    **{"TranslateY": 30.45317268371582, "Rotate": -9.0, "Brightness": 0.27, "Color": -0.27},
    **{"Contrast": 0.27, "Sharpness": -0.27, "Posterize": 7.0, "Solarize": 178.5},
    **{"AutoContrast": 0.0, "Equalize": 0.0},
}


@pytest.fixture
def photo(rng):
    """A PNG of smooth colours with noise, 300 x 260."""
    y, x = np.mgrid[:260, :300]
    smooth = np.stack([x * 0.6 + 30, y * 0.7 + 20, (x + y) * 0.3 + 10], axis=2)
    noisy = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 235).astype(np.uint8)
    return _encoded(Image.fromarray(noisy))


def _encoded(image, kind="PNG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def _cropped(photo, box=(20, 30, 200, 180)):
    return replay(photo, Version(box, ()), side=SIDE)


# ---- the rules, written once more ----


def _away_from(base, pixels, factor):
    changed = base.astype(np.float32) + np.float32(factor) * (pixels.astype(np.float32) - base)
    return changed.clip(0, 255).astype(np.uint8)  # cut off, not rounded


def _grey(pixels):
    red, green, blue = (pixels[..., n].astype(np.int64) for n in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[..., None]


def _smooth(pixels):
    values = pixels.astype(np.float64)
    total = 5 * values[1:-1, 1:-1]
    for down in range(3):
        for across in range(3):
            if (down, across) != (1, 1):
                total = total + values[down : down + SIDE - 2, across : across + SIDE - 2]
    smooth = pixels.copy()
    smooth[1:-1, 1:-1] = np.floor(total / 13 + 0.5)
    return smooth


def _nearest(pixels, source):
    """Takes each pixel from source(x, y), given and returned at pixels' centres; else black."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    column, row = (np.floor(values + 1e-9).astype(int) for values in source(x, y))
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE)
    moved = np.zeros_like(pixels)
    moved[inside] = pixels[row[inside], column[inside]]
    return moved


def _rotated(x, y, degrees):
    angle, half = np.deg2rad(degrees), SIDE / 2
    # Counter-clockwise, so that each pixel is taken from a place turned clockwise on the screen.
    across, down = x - half, y - half
    return (
        np.cos(angle) * across - np.sin(angle) * down + half,
        np.sin(angle) * across + np.cos(angle) * down + half,
    )


def _stretched(pixels):
    low, high = pixels.min((0, 1)).astype(float), pixels.max((0, 1)).astype(float)
    return ((pixels - low) * 255 / (high - low) + 1e-9).astype(np.uint8)


def _equal(channel):
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
    before = step // 2 + np.cumsum(counts) - counts
    return (before // step).clip(max=255).astype(np.uint8)[channel]


REFERENCES = {
    "Identity": lambda p, m: p,
    "ShearX": lambda p, m: _nearest(p, lambda x, y: (x + m * y, y)),
    "ShearY": lambda p, m: _nearest(p, lambda x, y: (x, y + m * x)),
    "TranslateX": lambda p, m: _nearest(p, lambda x, y: (x - int(m), y)),
    "TranslateY": lambda p, m: _nearest(p, lambda x, y: (x, y - int(m))),
    "Rotate": lambda p, m: _nearest(p, lambda x, y: _rotated(x, y, m)),
    "Brightness": lambda p, m: _away_from(np.zeros_like(p), p, 1 + m),
    "Color": lambda p, m: _away_from(_grey(p), p, 1 + m),
    "Contrast": lambda p, m: _away_from(np.full_like(p, int(_grey(p).mean() + 0.5)), p, 1 + m),
    "Sharpness": lambda p, m: _away_from(_smooth(p), p, 1 + m),
    "Posterize": lambda p, m: p >> (8 - int(m)) << (8 - int(m)),
    "Solarize": lambda p, m: np.where(p < m, p, 255 - p),
    "AutoContrast": lambda p, m: _stretched(p),
    "Equalize": lambda p, m: np.stack([_equal(p[..., n]) for n in range(3)], axis=2),
}
MOVING = {"ShearX", "ShearY", "Rotate"}
"""Pillow computes these places in 1/65536 pixels, so that a few may fall on the other side."""


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_follows_torchvisions_rule(name, sign, photo):
    magnitude = MAGNITUDES[name] * (sign if name not in ("Posterize", "Solarize") else 1)
    version = Version((20, 30, 200, 180), ((NAMES.index(name), magnitude),))
    found = replay(photo, version, side=SIDE).astype(int)
    expected = REFERENCES[name](_cropped(photo), magnitude).astype(int)
    other = (found != expected).any(axis=2).mean()
    assert other <= (0.01 if name in MOVING else 0.0), other
    if name != "Identity":
        assert (found != _cropped(photo)).any()


def test_a_crop_is_cut_out_before_it_is_resized(photo):
    part = Image.open(io.BytesIO(photo)).crop((30, 20, 210, 220))
    expected = np.asarray(part.resize((64, 64), Image.Resampling.BICUBIC))
    found = replay(photo, Version((20, 30, 200, 180), ()), side=64)
    np.testing.assert_array_equal(found, expected)


def test_operations_follow_each_other(photo):
    both = ((NAMES.index("Solarize"), 178.5), (NAMES.index("Rotate"), 9.0))
    found = replay(photo, Version((0, 0, 260, 300), both), side=SIDE)
    first = replay(photo, Version((0, 0, 260, 300), both[:1]), side=SIDE)
    second = Version((0, 0, SIDE, SIDE), both[1:])
    expected = replay(_encoded(Image.fromarray(first)), second, side=SIDE)
    np.testing.assert_array_equal(found, expected)


def test_a_shift_is_the_same_share_of_a_smaller_image(photo):
    shift = (NAMES.index("TranslateX"), 56.0)  # a quarter
    found = replay(photo, Version((0, 0, 260, 300), (shift,)), side=64)
    still = replay(photo, Version((0, 0, 260, 300), ()), side=64)
    np.testing.assert_array_equal(found[:, 16:], still[:, :-16])
    assert not found[:, :16].any()


def test_a_box_is_scaled_to_a_copy_of_another_size(photo):
    image = Image.open(io.BytesIO(photo))
    small = _encoded(image.resize((150, 130), Image.Resampling.BOX))
    found = replay(small, Version((20, 30, 200, 180), (), size=(300, 260)), side=64).astype(int)
    expected = replay(photo, Version((20, 30, 200, 180), ()), side=64).astype(int)
    assert np.abs(found - expected).mean() < 4
    assert np.abs(found - replay(small, Version((0, 0, 130, 150), ()), side=64)).mean() > 10


def test_a_box_that_does_not_fit_refuses_the_image():
    assert replay(jpeg(side=32), Version((0, 0, 33, 32), ()), side=16) == Refused("other_size")
    assert replay(b"no image", Version((0, 0, 1, 1), ()), side=16) == Refused("corrupt_image")


def test_an_image_is_taken_as_it_is_stored(rng):
    pixels = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    clear = _encoded(Image.fromarray(pixels), exif=exif)
    found = replay(clear, Version((0, 0, 20, 30), ()), side=20)
    rgb = Image.fromarray(pixels[..., :3]).resize((20, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found, np.asarray(rgb))
