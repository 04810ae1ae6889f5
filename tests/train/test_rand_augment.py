"""Every operation against Pillow's, and that an image follows from its own numbers."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from openmofi.config import AugmentSettings
from openmofi.train.augment import NUM_DRAWS, augment
from openmofi.train.rand_augment import OPERATIONS, operation_draws, rand_augment

NAMES = list(OPERATIONS)
SIDE = 24


def _photos(count=6):
    """Smooth and noisy images, dark ones among them, and one of a single colour."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 1, SIDE)[:, None, None] * np.linspace(0.3, 1, SIDE)[None, :, None]
    photos = [
        ramp * rng.uniform(60, 255, 3) + rng.normal(0, 3 * number, (SIDE, SIDE, 3))
        for number in range(count - 1)
    ]
    flat = np.full((SIDE, SIDE, 3), 77.0)
    return torch.from_numpy(np.stack([*photos, flat]).clip(0, 255).astype(np.uint8))


def _apply(name, pixels, magnitude, sign):
    which, way = (NAMES.index(name) + 0.5) / len(NAMES), 0.75 if sign > 0 else 0.25
    draws = torch.tensor([[which, way]]).expand(len(pixels), 2)
    return rand_augment(pixels, draws, magnitude=magnitude).numpy().astype(int)


POINTWISE = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "solarize": lambda image, level: ImageOps.solarize(image, 256 * (1 - abs(level))),
    "posterize": lambda image, level: ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "colour": lambda image, level: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
    "contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
}


@pytest.mark.parametrize("level", [0.0, 0.3, -0.3, 1.0, -1.0])
@pytest.mark.parametrize("name", POINTWISE)
def test_levels_are_those_of_pillow(name, level):
    pixels = _photos()
    changed = _apply(name, pixels, abs(level), level)
    for image, mine in zip(pixels.numpy(), changed, strict=True):
        theirs = np.asarray(POINTWISE[name](Image.fromarray(image), level)).astype(int)
        assert np.abs(theirs - mine).max() <= 1  # which Pillow rounds down


def _map(name, level):
    """The place (x, y, 1), from the centre, where each pixel of the result is looked up."""
    angle, shear, shift = math.radians(30 * level), 0.3 * level, 0.45 * level * SIDE
    return {
        "rotate": [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]],
        "shear_x": [[1, shear, 0], [0, 1, 0]],
        "shear_y": [[1, 0, 0], [shear, 1, 0]],
        "translate_x": [[1, 0, shift], [0, 1, 0]],
        "translate_y": [[1, 0, 0], [0, 1, shift]],
    }[name]


@pytest.mark.parametrize("level", [0.0, 0.3, -0.3, 1.0, -1.0])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_places_are_those_of_pillow(name, level):
    (a, b, c), (d, e, f) = _map(name, level)
    half = SIDE / 2
    numbers = (a, b, c + half - (a + b) * half, d, e, f + half - (d + e) * half)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    looked = np.stack([numbers[i] * x + numbers[i + 1] * y + numbers[i + 2] for i in (0, 3)])
    inside = ((looked > 1) & (looked < SIDE - 1)).all(0)
    outside = ((looked < -1) | (looked > SIDE + 1)).any(0)
    pixels = _photos()
    changed = _apply(name, pixels, abs(level), level)
    for image, mine in zip(pixels.numpy(), changed, strict=True):
        drawn = Image.fromarray(image)
        size, how = drawn.size, Image.Transform.AFFINE
        theirs = drawn.transform(size, how, numbers, Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(theirs).astype(int) - mine)[inside].max() <= 1
        assert (mine[outside] == 128).all()
    assert inside.mean() > 0.2


def test_a_rotation_is_that_of_pillow():
    pixels = _photos()
    middle = slice(8, 16)
    for sign in (1, -1):
        changed = _apply("rotate", pixels, 0.5, sign)
        for image, mine in zip(pixels.numpy(), changed, strict=True):
            turned = Image.fromarray(image).rotate(-15 * sign, Image.Resampling.BILINEAR)
            difference = np.abs(np.asarray(turned).astype(int) - mine)[middle, middle]
            assert difference.max() <= 1


def test_each_image_goes_through_its_own_operations():
    pixels = _photos().repeat(5, 1, 1, 1)
    draws = torch.from_numpy(operation_draws(np.arange(30), num_ops=2, seed=3))
    whole = rand_augment(pixels, draws, magnitude=0.5)
    assert len({int(14 * number) for number in draws[:, 0]}) > 8
    for place, (image, numbers) in enumerate(zip(pixels, draws, strict=True)):
        seen = image[None]
        for which, way in numbers.view(2, 2).tolist():
            name, level = NAMES[int(which * 14)], -0.5 if way < 0.5 else 0.5
            seen = torch.from_numpy(_apply(name, seen, 0.5, level)).to(torch.uint8)
        assert torch.equal(whole[place], seen[0])


def test_operations_follow_crops_and_colours_and_leave_the_pixels_given_as_they_were():
    pixels, settings = _photos(), AugmentSettings(rand_ops=2)
    draws = torch.rand(6, NUM_DRAWS + 4, generator=torch.Generator().manual_seed(1))
    before = pixels.clone()
    cropped = augment(pixels, AugmentSettings(), draws[:, :NUM_DRAWS])
    expected = rand_augment(cropped, draws[:, NUM_DRAWS:], magnitude=0.3)
    assert torch.equal(augment(pixels, settings, draws), expected)
    assert torch.equal(pixels, before)
    assert not torch.equal(expected, cropped)
    assert torch.equal(augment(pixels, AugmentSettings(), draws), cropped)


@pytest.mark.parametrize("num_ops", [0, 1, 3])
def test_numbers_of_operations_are_their_own(num_ops):
    draws = operation_draws(np.arange(1000), num_ops=num_ops, seed=5)
    assert draws.shape == (1000, 2 * num_ops)
    assert len(np.unique(draws)) == draws.size
    for column in draws.T:
        counts = np.bincount((column * 14).astype(int), minlength=14)
        assert counts.min() > 40
