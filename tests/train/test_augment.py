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


def test_flipping_alone_gives_the_picture_or_its_mirror():
    pixels = _pixels()
    flipped = augment(pixels, AugmentSettings(1.0, True, 0.0), _draws(4))
    for before, after in zip(pixels, flipped, strict=True):
        same = (before.int() - after.int()).abs().max() <= 1
        mirrored = (before.flip(1).int() - after.int()).abs().max() <= 1
        assert same or mirrored


def test_without_flip_no_picture_is_mirrored():
    ramp = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 16, 1).expand(8, 16, 16, 3)
    out = augment(ramp, AugmentSettings(crop=0.5, colour=0.0), _draws(8))
    middle = out.float().mean(dim=(1, 3))
    assert (middle[:, 12] > middle[:, 3]).all()


def test_an_image_is_changed_by_its_own_numbers_alone():
    pixels, draws = _pixels(), _draws(4)
    whole = augment(pixels, AugmentSettings(), draws)
    part = augment(pixels[2:], AugmentSettings(), draws[2:])
    assert torch.equal(whole[2:], part)
