import torch

from openmofi.config import AugmentSettings
from openmofi.train.augment import augment


def _pixels():
    return torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)


def test_switched_off_it_changes_nothing():
    pixels = _pixels()
    settings = AugmentSettings(crop=1.0, flip=False, colour=0.0)
    assert torch.equal(augment(pixels, settings, torch.Generator()), pixels)


def test_flipping_alone_gives_the_picture_or_its_mirror():
    pixels = _pixels()
    flipped = augment(pixels, AugmentSettings(1.0, True, 0.0), torch.Generator().manual_seed(1))
    for before, after in zip(pixels, flipped, strict=True):
        same = (before.int() - after.int()).abs().max() <= 1
        mirrored = (before.flip(1).int() - after.int()).abs().max() <= 1
        assert same or mirrored


def test_without_flip_no_picture_is_mirrored():
    ramp = torch.arange(0, 256, 16, dtype=torch.uint8).view(1, 1, 16, 1).expand(8, 16, 16, 3)
    out = augment(ramp, AugmentSettings(crop=0.5, colour=0.0), torch.Generator().manual_seed(0))
    middle = out.float().mean(dim=(1, 3))
    assert (middle[:, 12] > middle[:, 3]).all()


def test_the_same_generator_state_gives_the_same_pixels():
    pixels = _pixels()
    one, other = (
        augment(pixels, AugmentSettings(), torch.Generator().manual_seed(7)) for _ in range(2)
    )
    assert torch.equal(one, other)
