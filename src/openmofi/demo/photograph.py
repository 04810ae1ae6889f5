"""Photographs a flat flag: cloth, sticker, badge, icon, bunting or paint, outdoors or in a studio.

In: an RGBA image of a flag and a random generator. Out: the bytes of a small JPEG.
The flag is laid on a plane in front of a camera: each pixel (x, y) of the frame, -1 to 1, is
traced back to the plane's (s, t), in flag heights from the flag's middle, and from there
to the flag's own (u, v), 0 to 1. Photos are never mirrored, since a mirrored flag is another one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from openmofi.demo.backgrounds import draw_background, resized
from openmofi.demo.exposure import cross_with_wire, develop, draw_grey, relight

_SUPERSAMPLING = 2

Grid = np.ndarray  # [side, side] float32


@dataclass(frozen=True)
class Plane:
    """The position of the flag's plane in the frame."""

    s: Grid
    t: Grid
    width: float
    """The flag's width in flag heights."""


@dataclass
class Laid:
    """A flag laid on the plane, pixel by pixel."""

    u: Grid
    v: Grid
    mask: Grid
    """1 where the pixel shows the flag, less for transparent paint."""
    shade: Grid | float = 1.0
    """Brightness factor of the flag."""
    trim: Grid | None = None
    """1 where the pixel shows what holds the flag: pole, border, rim or string."""
    trim_colour: tuple[float, float, float] = (255.0, 255.0, 255.0)
    shadow: bool = False
    """Whether it lies on a surface and casts a shadow."""


def photograph(flag: Image.Image, rng: np.random.Generator, *, size: int = 64) -> bytes:
    """Returns a JPEG of `size` x `size` pixels that shows the flag.

    The same flag, generator state and size give the same bytes with the same Pillow and NumPy.
    """
    form = _FORMS[int(rng.choice(len(_FORMS), p=_FORM_SHARES))]
    background = draw_background(rng, size=size, plain=form in (_icon, _badge))
    scene = _compose(flag, background, form, rng)
    if rng.random() < 0.08:
        cross_with_wire(scene, rng)
    scene = relight(scene, rng)
    return develop(scene, rng)


# ---- where the flag lies ------------------------------------------------------------------


def _place(width: float, side: int, form: Callable, rng: np.random.Generator) -> Plane:
    """Draws scale, position, rotation and perspective; the flag covers 35-90% of the frame."""
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side) * 2 - 1
    x, y = axis[None, :], axis[:, None]
    width_shown = 1.0 if form in (_icon, _badge) else width
    if form is _bunting:
        height = float(rng.uniform(0.9, 1.5) / (width_shown + 0.25))  # in frame halves
    else:
        cover = rng.uniform(0.35, 0.9)
        height = float(min(np.sqrt(4 * cover / width_shown), 2.5 / width_shown, 2.1))
    slack = 0.08 * height * min(width_shown, 1.0)
    cx = rng.uniform(-1, 1) * (max(0.0, 1 - height * width_shown / 2) + slack)
    cy = rng.uniform(-1, 1) * (max(0.0, 1 - height / 2) + slack)
    tilt = 0.3 if form in (_sticker, _painted, _badge) else 0.16
    angle = rng.normal(0, tilt) if form is not _icon else rng.normal(0, 0.03)
    bend = rng.uniform(-0.22, 0.22, 2) if form is not _icon else (0.0, 0.0)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = (x - cx) / height, (y - cy) / height
    # Bunting fills the frame; a stronger perspective would fold the plane over.
    reach = max(width_shown, 2 / height) if form is _bunting else width_shown
    depth = 1 + (np.float32(bend[0]) * dx + np.float32(bend[1]) * dy) / np.float32(reach)
    s = ((cos * dx + sin * dy) / depth).astype(np.float32)
    t = ((cos * dy - sin * dx) / depth).astype(np.float32)
    return Plane(s, t, width)


# ---- forms --------------------------------------------------------------------------------


def _cloth(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays a waving flag that is fixed to a pole at its hoist."""
    along = plane.s / plane.width + 0.5
    grip = np.clip(along, 0, 1) ** np.float32(rng.uniform(0.4, 1.0))
    v, slope = _wave(plane.s, plane.t, grip, plane.width, rng)
    v = v - np.float32(rng.uniform(-0.02, 0.18)) * grip**2
    squeeze = np.float32(rng.uniform(0, 0.025))
    u = along + squeeze * np.sin(np.float32(rng.uniform(5, 9)) * along)
    laid = Laid(u, v, _inside(u, v), shade=1 + np.float32(rng.uniform(0.15, 0.5)) * slope)
    if rng.random() < 0.75:
        edge = np.float32(rng.uniform(0.03, 0.07))
        pole = (plane.s + plane.width / 2 > -edge) & (plane.s + plane.width / 2 < 0)
        laid.trim = (pole & (plane.t > -0.6)).astype(np.float32)
        laid.trim_colour = draw_grey(rng)
    return laid


def _wave(
    s: Grid, t: Grid, grip: Grid, width: float, rng: np.random.Generator
) -> tuple[Grid, Grid]:
    """Returns (v, slope) of cloth moved up and down by two waves that start at the hoist."""
    v, slope = t + np.float32(0.5), np.zeros_like(t)
    for strength in (1.0, 0.4):
        height = np.float32(strength * rng.uniform(0.01, 0.085))
        waves = np.float32(2 * np.pi * rng.uniform(0.7, 1.9) / (strength * width))
        phase = waves * s + np.float32(rng.uniform(-1.5, 1.5)) * t + np.float32(rng.uniform(0, 6.3))
        v = v + height * grip * np.sin(phase)
        slope = slope + np.float32(strength) * grip * np.cos(phase)
    return v, slope


def _sticker(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays a flat sticker or sewn patch, with rounded corners and often a border."""
    u, v = plane.s / plane.width + 0.5, plane.t + 0.5
    radius = rng.uniform(0, 0.16)
    distance = _box_distance(plane.s, plane.t, plane.width / 2, 0.5, radius)
    laid = Laid(u, v, (distance < 0).astype(np.float32), shade=_sheen(plane, rng), shadow=True)
    if rng.random() < 0.7:
        laid.trim = ((distance >= 0) & (distance < rng.uniform(0.03, 0.1))).astype(np.float32)
        laid.trim_colour = draw_grey(rng)
    return laid


def _badge(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays a round button; the flag is cut at its sides, squeezed to fit, or both."""
    u, v = _fitted(plane, rng)
    radius = np.hypot(plane.s, plane.t)
    rim = rng.choice([0.0, rng.uniform(0.02, 0.07)])
    laid = Laid(u, v, (radius < 0.5).astype(np.float32), shade=_sheen(plane, rng))
    laid.trim = ((radius >= 0.5) & (radius < 0.5 + rim)).astype(np.float32)
    laid.trim_colour, laid.shadow = draw_grey(rng), bool(rng.random() < 0.6)
    return laid


def _icon(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays a square image of the flag, as on a screen."""
    u, v = _fitted(plane, rng)
    distance = _box_distance(plane.s, plane.t, 0.5, 0.5, rng.choice([0.0, 0.1, 0.25]))
    return Laid(u, v, (distance < 0).astype(np.float32), shadow=bool(rng.random() < 0.3))


def _bunting(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays several small copies on a sagging string, in one or more rows."""
    sagging = plane.t - np.float32(rng.uniform(-0.06, 0.1)) * plane.s**2
    rows = rng.choice([1.0, 0.0])
    row = np.round(sagging / 1.5) * np.float32(rows)
    t = sagging - row * 1.5
    cell = np.float32(plane.width + rng.uniform(0.08, 0.35))
    shifted = plane.s + row * np.float32(rng.uniform(-0.5, 0.5))
    copy = np.round(shifted / cell)
    s = shifted - copy * cell
    swing = np.float32(rng.uniform(0, 0.12)) * np.sin(copy * 2.4 + row)
    hang = t + 0.5
    v, slope = _wave(s + 3 * copy, t, np.clip(hang, 0, 1), plane.width, rng)
    u = (s - swing * hang) / plane.width + 0.5
    laid = Laid(u, v, _inside(u, v), shade=1 + np.float32(rng.uniform(0.1, 0.35)) * slope)
    laid.trim = ((hang > -0.06) & (hang < 0)).astype(np.float32)
    laid.trim_colour = draw_grey(rng)
    return laid


def _painted(plane: Plane, rng: np.random.Generator, wall: Grid) -> Laid:
    """Lays paint on the background, whose texture shows through."""
    u, v = plane.s / plane.width + 0.5, plane.t + 0.5
    side = plane.s.shape[0]
    rough = resized(rng.random((14, 14)), side)
    worn = np.clip((rough - rng.uniform(-0.1, 0.2)) * 6, 0, 1)
    mask = _inside(u, v) * worn * np.float32(rng.uniform(0.8, 1.0))
    return Laid(u, v, mask, shade=np.clip(wall / wall.mean(), 0.6, 1.4) ** np.float32(0.8))


_FORMS = (_cloth, _sticker, _badge, _icon, _bunting, _painted)
_FORM_SHARES = (0.46, 0.14, 0.13, 0.09, 0.09, 0.09)


def _fitted(plane: Plane, rng: np.random.Generator) -> tuple[Grid, Grid]:
    """Maps a square in the plane's middle to the flag's middle, or to a larger part, squeezed."""
    kept = 1 + (plane.width - 1) * rng.uniform(0.2, 1.0)
    return plane.s / np.float32(kept) + 0.5, plane.t + 0.5


def _inside(u: Grid, v: Grid) -> Grid:
    return ((u >= 0) & (u < 1) & (v >= 0) & (v < 1)).astype(np.float32)


def _box_distance(s: Grid, t: Grid, half_s: float, half_t: float, radius: float) -> Grid:
    """Returns the distance to a rectangle with rounded corners, negative inside."""
    ds, dt = np.abs(s) - (half_s - radius), np.abs(t) - (half_t - radius)
    outside = np.hypot(np.maximum(ds, 0), np.maximum(dt, 0))
    return outside + np.minimum(np.maximum(ds, dt), 0) - radius


def _sheen(plane: Plane, rng: np.random.Generator) -> Grid:
    """Returns a soft highlight somewhere on the surface."""
    x, y = rng.uniform(-0.5, 0.5, 2)
    distance = (plane.s - np.float32(x)) ** 2 + (plane.t - np.float32(y)) ** 2
    return 1 + np.float32(rng.uniform(-0.1, 0.35)) * np.exp(-6 * distance)


# ---- putting the image together ---------------------------------------------------------


def _compose(
    flag: Image.Image, background: Grid, form: Callable, rng: np.random.Generator
) -> np.ndarray:
    """Returns the scene [size, size, 3], float32, 0-255."""
    size = background.shape[0]
    side = size * _SUPERSAMPLING
    plane = _place(flag.width / flag.height, side, form, rng)
    wall = resized(background.mean(axis=2), side)
    laid = form(plane, rng, wall)
    colour, alpha = _sample(flag, plane, laid)
    if laid.trim is not None:
        trim = laid.trim * (1 - alpha)
        colour = colour + trim[..., None] * np.array(laid.trim_colour, np.float32)
        alpha = alpha + trim
    colour, alpha = _halved(colour), _halved(alpha)[..., None]
    if laid.shadow:
        dx, dy = rng.integers(-3, 4), rng.integers(0, 4)
        moved = np.roll(alpha[..., 0], (dy, dx), (0, 1))
        image = Image.fromarray((moved * 255).astype(np.uint8))
        blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(1, 2.5)))
        dark = np.asarray(blurred, np.float32) / 255 * np.float32(rng.uniform(0.2, 0.6))
        background = background * (1 - dark[..., None])
    return colour + background * (1 - alpha)


def _sample(flag: Image.Image, plane: Plane, laid: Laid) -> tuple[np.ndarray, Grid]:
    """Reads the flag at (u, v); returns its colours times alpha, and alpha."""
    # Pixels per flag height; reading from a copy of about this size prevents aliasing.
    step = abs(float(plane.t[1:, :].mean() - plane.t[:-1, :].mean())) or 1.0
    height = int(np.clip(1.2 / step, 12, flag.height))
    width = max(8, round(flag.width * height / flag.height))
    texels = np.asarray(flag.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    column = np.clip((laid.u * width).astype(np.int32), 0, width - 1)
    row = np.clip((laid.v * height).astype(np.int32), 0, height - 1)
    pixels = texels.reshape(-1, 4)[row * width + column]
    alpha = laid.mask * pixels[..., 3] / 255
    shade = np.clip(laid.shade, 0.3, 1.8) * alpha
    return pixels[..., :3] * np.asarray(shade)[..., None], alpha


def _halved(grid: np.ndarray) -> np.ndarray:
    """Averages the supersampled pixels."""
    n = _SUPERSAMPLING
    rows, columns = grid.shape[0] // n, grid.shape[1] // n
    return grid.reshape(rows, n, columns, n, *grid.shape[2:]).mean(axis=(1, 3))
