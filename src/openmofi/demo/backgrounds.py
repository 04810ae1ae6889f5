"""Draws the background of a photographed flag: sky, sea, grass, walls, studio paper or blur.

Out: an array [size, size, 3] of float32, 0-255, made from smoothed random numbers.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

_Colour = tuple[float, float, float]


def draw_background(rng: np.random.Generator, *, size: int, plain: bool = False) -> np.ndarray:
    """Returns a random background; with `plain`, it is mostly studio paper."""
    if plain and rng.random() < 0.6:
        return _studio(rng, size)
    draw = _KINDS[int(rng.integers(len(_KINDS)))]
    return draw(rng, size)


def resized(grid: np.ndarray, side: int) -> np.ndarray:
    """Returns a small 2-D array smoothly enlarged to `side` x `side`, float32."""
    image = Image.fromarray(np.asarray(grid, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def _noise(
    rng: np.random.Generator, size: int, rows: int, columns: int | None = None
) -> np.ndarray:
    """Returns smooth noise of about 0-1 with `rows` x `columns` bumps."""
    return resized(rng.random((rows, columns or rows), np.float32), size)


def _mix(low: _Colour, high: _Colour, share: np.ndarray) -> np.ndarray:
    """Blends two colours by a share per pixel."""
    first, second = np.array(low, np.float32), np.array(high, np.float32)
    return first + np.clip(share, 0, 1)[..., None] * (second - first)


def _one_of(rng: np.random.Generator, *colours: _Colour) -> _Colour:
    red, green, blue = np.array(colours[int(rng.integers(len(colours)))]) + rng.normal(0, 12, 3)
    return float(red), float(green), float(blue)


def _ramp(size: int) -> np.ndarray:
    return np.linspace(0, 1, size, dtype=np.float32)[:, None] * np.ones((1, size), np.float32)


def _sky(rng: np.random.Generator, size: int) -> np.ndarray:
    top = _one_of(rng, (60, 120, 200), (110, 150, 190), (150, 160, 170), (70, 80, 130))
    bottom = _one_of(rng, (190, 215, 240), (210, 215, 220), (240, 190, 140), (120, 170, 225))
    sky = _mix(top, bottom, _ramp(size))
    clouds = 0.6 * _noise(rng, size, 4) + 0.4 * _noise(rng, size, 9)
    thick = np.clip((clouds - rng.uniform(0.4, 0.7)) * 4, 0, 1)[..., None]
    white = np.float32(rng.uniform(190, 250))
    return sky + thick * (white - sky)


def _sea(rng: np.random.Generator, size: int) -> np.ndarray:
    drawn = _sky(rng, size)
    horizon = int(size * rng.uniform(0.3, 0.8))
    deep = _one_of(rng, (20, 70, 110), (40, 100, 120), (60, 80, 95))
    waves = _noise(rng, size, 32, 7)
    drawn[horizon:] = _mix(deep, (150, 185, 200), waves * 0.6)[horizon:]
    return drawn


def _grass(rng: np.random.Generator, size: int) -> np.ndarray:
    dark = _one_of(rng, (40, 75, 25), (60, 85, 40), (85, 90, 45))
    light = _one_of(rng, (120, 160, 70), (150, 170, 90))
    return _mix(dark, light, 0.5 * _noise(rng, size, 30) + 0.5 * _noise(rng, size, 5))


def _trees(rng: np.random.Generator, size: int) -> np.ndarray:
    drawn = _sky(rng, size)
    leaves = _grass(rng, size) * np.float32(0.8)
    line = _noise(rng, size, 1, 8)[0] * 0.35 + rng.uniform(0.2, 0.7)
    covered = (_ramp(size) > line[None, :])[..., None]
    return np.where(covered, leaves, drawn)


def _brick(rng: np.random.Generator, size: int) -> np.ndarray:
    low = _one_of(rng, (120, 60, 45), (150, 140, 130), (95, 80, 75), (170, 120, 90))
    high = (low[0] + 45, low[1] + 40, low[2] + 35)
    height = int(rng.integers(5, 10)) * size // 64 or 1
    rows = np.arange(size) // height
    columns = (np.arange(size)[None, :] + (rows % 2)[:, None] * height) // (2 * height)
    shades = rng.random((64, 64), np.float32)
    wall = _mix(low, high, shades[rows[:, None] % 64, columns % 64])
    joint = (np.arange(size) % height == 0)[:, None] | (
        (np.arange(size)[None, :] + (rows % 2)[:, None] * height) % (2 * height) == 0
    )
    wall[joint] = rng.uniform(110, 200)
    return wall + (_noise(rng, size, 30)[..., None] - 0.5) * 25


def _wood(rng: np.random.Generator, size: int) -> np.ndarray:
    dark = _one_of(rng, (90, 60, 35), (120, 90, 60), (70, 60, 55))
    grain = 0.7 * _noise(rng, size, 3, 30) + 0.3 * _noise(rng, size, 12, 40)
    wood = _mix(dark, (dark[0] + 80, dark[1] + 65, dark[2] + 45), grain)
    plank = int(rng.integers(12, 24)) * size // 64 or 1
    wood[:, ::plank] *= np.float32(0.5)
    return wood if rng.random() < 0.5 else np.ascontiguousarray(wood.transpose(1, 0, 2))


def _studio(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws plain paper, in half of the cases white, else of any colour, darker to one side."""
    plain = (250.0, 250.0, 250.0) if rng.random() < 0.5 else tuple(rng.uniform(10, 245, 3))
    side = _ramp(size) if rng.random() < 0.5 else _ramp(size).T
    shade = 1 - np.float32(rng.uniform(0, 0.2)) * side
    return np.array(plain, np.float32) * shade[..., None]


def _colours(rng: np.random.Generator, size: int, bumps: int) -> np.ndarray:
    """Returns smooth colours of about 0-1, with a random saturation."""
    colours = np.stack([_noise(rng, size, bumps) for _ in range(3)], axis=2)
    grey = colours.mean(axis=2, keepdims=True)
    return grey + (colours - grey) * np.float32(rng.uniform(0.2, 0.9))


def _blobs(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws out-of-focus colours."""
    bumps = int(rng.integers(3, 7))
    return np.clip(_colours(rng, size, bumps) * 230 + 10, 0, 255)


def _crowd(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draws small patches of all colours, like people seen from afar."""
    count = int(rng.integers(14, 30))
    shade = 0.5 + _noise(rng, size, count)
    return np.clip(_colours(rng, size, count) * shade[..., None] * 190 + 10, 0, 255)


_KINDS = (_sky, _sky, _sea, _grass, _trees, _brick, _wood, _studio, _studio, _blobs, _blobs, _crowd)
