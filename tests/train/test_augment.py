import math

import pytest
import torch

from openmofi.config import AugmentSettings
from openmofi.train.augment import NUM_DRAWS, augment


def _draws(count, seed=0):
    return torch.rand(count, NUM_DRAWS, generator=torch.Generator().manual_seed(seed))


def _pixels():
    return torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)


def test_switched_off_it_changes_nothing():
    pixels = _pixels()
    settings = AugmentSettings(crop=1.0, flip=False, colour=0.0)
    assert torch.equal(augment(pixels, settings, _draws(4)), pixels)


def _sides(crop, draws):
    """Width and height of the windows, from the slopes that are left of two ramps."""
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(64, 64)
    pixels = torch.stack([ramp, ramp.T, ramp], -1).expand(len(draws), 64, 64, 3)
    out = augment(pixels, AugmentSettings(crop=crop, colour=0.0), draws).float()[:, 8:56, 8:56]
    width, height = out[..., 0].mean(1), out[..., 1].mean(2)
    return [(side[:, -1] - side[:, 0]) / (47 * 4) for side in (width, height)]


@pytest.mark.parametrize("crop", [0.95, 0.9, 0.7, 0.3])
def test_a_crop_keeps_what_was_drawn_in_every_aspect(crop):
    area, aspect = torch.meshgrid(torch.linspace(0, 1, 7), torch.linspace(0, 1, 7), indexing="ij")
    draws = torch.full((49, NUM_DRAWS), 0.5)
    draws[:, 0], draws[:, 1] = area.flatten(), aspect.flatten()
    width, height = _sides(crop, draws)
    wanted = crop + (1 - crop) * draws[:, 0]
    torch.testing.assert_close(width * height, wanted, rtol=0.02, atol=0.01)
    reach = (-wanted.log()).clamp(max=math.log(4 / 3))
    wanted_aspect = (reach * (2 * draws[:, 1] - 1)).exp()
    torch.testing.assert_close(width / height, wanted_aspect, rtol=0.03, atol=0.01)


@pytest.mark.parametrize(("place", "axis"), [(2, 2), (3, 1)], ids=["sideways", "upright"])
def test_a_crop_lies_anywhere_within_the_image(place, axis):
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(64, 64)
    pixels = (ramp if axis == 2 else ramp.T)[None, ..., None].expand(3, 64, 64, 3)
    draws = torch.full((3, NUM_DRAWS), 0.5)
    draws[:, 0], draws[:, place] = 0.0, torch.tensor([0.0, 0.5, 1.0])
    out = augment(pixels, AugmentSettings(crop=0.25, colour=0.0), draws).float()
    edges = out.amin((1, 2, 3)), out.amax((1, 2, 3))
    torch.testing.assert_close(edges[0], torch.tensor([0.0, 63.0, 127.0]), atol=2, rtol=0)
    torch.testing.assert_close(edges[1], torch.tensor([125.0, 189.0, 252.0]), atol=2, rtol=0)


def _slow_colour(pixel_mean, pixel, strength, draws):
    """One pixel of three numbers: brightness, then contrast about the mean, then saturation."""
    brightness, contrast, saturation = (1 + strength * (2 * d - 1) for d in draws)
    mean = pixel_mean * brightness
    levels = [mean + (value * brightness - mean) * contrast for value in pixel]
    grey = sum(levels) / 3
    return [min(max(grey + (v - grey) * saturation, 0), 255) for v in levels]


@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_colours_change_as_the_numbers_say(strength):
    pixels, draws = _pixels(), _draws(4)
    out = augment(pixels, AugmentSettings(crop=1.0, colour=strength), draws)
    for image, numbers, changed in zip(pixels.double(), draws.tolist(), out, strict=True):
        mean = image.mean().item()
        for row, column in ((0, 0), (3, 9), (15, 2)):
            pixel = image[row, column].tolist()
            expected = torch.tensor(_slow_colour(mean, pixel, strength, numbers[5:])).float()
            torch.testing.assert_close(changed[row, column].float(), expected, atol=0.6, rtol=0)


def test_flipping_alone_gives_the_image_or_its_mirror():
    pixels = _pixels()
    flipped = augment(pixels, AugmentSettings(1.0, True, 0.0), _draws(4))
    for before, after in zip(pixels, flipped, strict=True):
        same = (before.int() - after.int()).abs().max() <= 1
        mirrored = (before.flip(1).int() - after.int()).abs().max() <= 1
        assert same or mirrored


def test_half_of_the_images_are_mirrored():
    ramp = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 16, 1).expand(4, 16, 16, 3)
    draws = _draws(4)
    draws[:, 4] = torch.tensor([0.0, 0.49, 0.51, 0.99])
    out = augment(ramp, AugmentSettings(1.0, True, 0.0), draws)
    assert (out[:, 0, 0, 0] > out[:, 0, 15, 0]).tolist() == [True, True, False, False]


def test_without_flip_no_image_is_mirrored():
    ramp = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 16, 1).expand(8, 16, 16, 3)
    out = augment(ramp, AugmentSettings(crop=0.5, colour=0.0), _draws(8))
    middle = out.float().mean(dim=(1, 3))
    assert (middle[:, 12] > middle[:, 3]).all()


def test_an_image_is_changed_by_its_own_numbers_alone():
    pixels, draws = _pixels(), _draws(4)
    whole = augment(pixels, AugmentSettings(), draws)
    part = augment(pixels[2:], AugmentSettings(), draws[2:])
    assert torch.equal(whole[2:], part)
