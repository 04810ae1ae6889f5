"""The shapes of flags beyond stripes and crosses: stars, wheels, leaves, birds.

Each function paints one shape on a `Canvas`; its arguments are the words of a drawing instruction
(see flags.py). `EMBLEMS` lists the functions by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from openmofi.demo.canvas import Canvas, Point, circle, rgba

# ---- discs and stars ----------------------------------------------------------------------


def _disc(canvas: Canvas, colour: str, x: str, y: str, radius: str) -> None:
    canvas.disc(colour, float(x), float(y), float(radius))


def _star(
    canvas: Canvas,
    colour: str,
    x: str,
    y: str,
    radius: str,
    points: str = "5",
    angle: str = "0",
    inner: str = "0.382",
) -> None:
    cx, cy, r, count, turn = float(x), float(y), float(radius), int(points), float(angle)
    tips = circle(cx, cy, r, count, turn)
    notches = circle(cx, cy, r * float(inner), count, turn + 180 / count)
    canvas.polygon(colour, [point for pair in zip(tips, notches, strict=True) for point in pair])


def _stars(canvas: Canvas, colour: str, width: str, height: str) -> None:
    """Paints the fifty stars of the United States in a canton of the given size."""
    for row in range(1, 10):
        for column in range(1 + (row + 1) % 2, 12, 2):
            x, y = column / 12 * float(width), row / 10 * float(height)
            _star(canvas, colour, str(x), str(y), "0.031")


def _dots(canvas: Canvas, colour: str, *centres: str) -> None:
    for x, y in zip(centres[::2], centres[1::2], strict=True):
        canvas.disc(colour, float(x), float(y), 0.012)


def _pentagram(canvas: Canvas, colour: str, x: str, y: str, radius: str, width: str) -> None:
    tips = circle(float(x), float(y), float(radius), 5)
    for index in range(5):
        canvas.line(colour, tips[index], tips[(index + 2) % 5], float(width))


def _hexagram(canvas: Canvas, colour: str, x: str, y: str, radius: str, width: str) -> None:
    for angle in (0, 180):
        corners = circle(float(x), float(y), float(radius), 3, angle)
        for index in range(3):
            canvas.line(colour, corners[index], corners[(index + 1) % 3], float(width))


def _wheel(canvas: Canvas, colour: str, x: str, y: str, radius: str) -> None:
    """Paints the 24-spoked wheel of India's flag."""
    cx, cy, r = float(x), float(y), float(radius)
    canvas.disc(colour, cx, cy, r)
    canvas.disc("FFFFFF", cx, cy, r * 0.85)
    for tip in circle(cx, cy, r * 0.9, 24):
        canvas.line(colour, (cx, cy), tip, r * 0.045)
    canvas.disc(colour, cx, cy, r * 0.2)


def _band(canvas: Canvas, colour: str, x: str, y: str, radius: str) -> None:
    """Paints the curved white band on the disc of Brazil's flag, an arc about a point below it."""
    cx, cy, r = float(x), float(y), float(radius)
    angles = [math.radians(a) for a in range(-17, 15)]
    low = (cx - 0.35 * r, cy + 3.02 * r)
    arcs = [
        [(low[0] + reach * r * math.sin(a), low[1] - reach * r * math.cos(a)) for a in angles]
        for reach in (3.32, 3.08)
    ]
    outline: list[Point] = []
    for px, py in (*arcs[0], *arcs[1][::-1]):  # pulled inside the disc
        dx, dy = px - cx, py - cy
        factor = min(1.0, r / max(math.hypot(dx, dy), 1e-9))
        outline.append((cx + dx * factor, cy + dy * factor))
    canvas.polygon(colour, outline)


# ---- emblems ------------------------------------------------------------------------------

# Half of the maple leaf of Canada's flag, from the stem to the top, in 1/4800 of its height.
_HALF_LEAF = (
    *((-90, 2030), (-45, 1167), (-156, 1069), (-1015, 1220), (-899, 900), (-919, 827)),
    *((-1860, 65), (-1648, -34), (-1614, -113), (-1800, -685), (-1258, -570), (-1185, -608)),
    *((-1080, -855), (-657, -401), (-546, -458), (-750, -1510), (-423, -1321), (-332, -1348)),
    (0, -2000),
)


def _leaf(canvas: Canvas, colour: str, x: str, y: str, height: str) -> None:
    factor = float(height) / 4800
    half = [(a * factor, b * factor) for a, b in _HALF_LEAF]
    outline = half + [(-a, b) for a, b in half[-2::-1]]
    canvas.polygon(colour, [(float(x) + a, float(y) + b) for a, b in outline])


def _shield(canvas: Canvas, colour: str, x: str, y: str, half: str) -> None:
    cx, cy, r = float(x), float(y), float(half)
    sides = [(-1, -1), (1, -1), (1, 0.2), (0.6, 0.8), (0, 1.2), (-0.6, 0.8), (-1, 0.2)]
    canvas.polygon(colour, [(cx + a * r, cy + b * r) for a, b in sides])


def _eagle(canvas: Canvas, colour: str, x: str, y: str, radius: str) -> None:
    """Paints a simplified eagle over a green wreath, as on Mexico's flag."""
    cx, cy, r = float(x), float(y), float(radius)
    wreath = [p for p in circle(cx, cy + 0.1 * r, 1.15 * r, 40) if p[1] > cy + 0.25 * r]
    for px, py in wreath:
        canvas.disc("4C8C3F", px, py, r * 0.16)
    body = [(-0.75, -0.75), (0.1, -0.95), (0.85, -0.55), (0.9, 0.35), (0.35, 0.1), (0.15, 0.6)]
    tail = [(-0.35, 0.6), (-0.6, 0.1), (-0.35, -0.25)]
    canvas.polygon(colour, [(cx + a * r, cy + b * r) for a, b in body + tail])
    canvas.disc("6FB7BF", cx, cy + 0.85 * r, r * 0.22)


def _taegeuk(canvas: Canvas, top: str, bottom: str, x: str, y: str, radius: str) -> None:
    """Paints the two interlocking drops of South Korea's flag, along the flag's diagonal."""
    cx, cy, r = float(x), float(y), float(radius)
    turn = math.atan2(1, canvas.width)
    dx, dy = r / 2 * math.cos(turn), r / 2 * math.sin(turn)
    box = [(v + s * r) * canvas.scale for s in (-1, 1) for v in (cx, cy)]
    canvas.disc(bottom, cx, cy, r)
    start = math.degrees(turn) - 180
    canvas.pen.pieslice(box, start, start + 180, fill=rgba(top))
    canvas.disc(top, cx - dx, cy - dy, r / 2)
    canvas.disc(bottom, cx + dx, cy + dy, r / 2)


# Broken (0) and whole (1) bars from the middle outwards: upper hoist, upper fly, lower hoist,
# lower fly.
_TRIGRAMS = ((1, 1, 1), (0, 1, 0), (1, 0, 1), (0, 0, 0))


def _trigrams(canvas: Canvas, colour: str) -> None:
    turn = math.atan2(1, canvas.width)
    for index, bars in enumerate(_TRIGRAMS):
        side, down = (-1, 1)[index % 2], (-1, 1)[index // 2]
        out = (side * math.cos(turn), down * math.sin(turn))
        along = (-out[1], out[0])
        for step, whole in enumerate(bars):
            reach = 0.375 + 0.042 + step * 0.0625
            x, y = canvas.width / 2 + out[0] * reach, 0.5 + out[1] * reach
            for start, end in ((-0.125, 0.125),) if whole else ((-0.125, -0.012), (0.012, 0.125)):
                first = (x + along[0] * start, y + along[1] * start)
                last = (x + along[0] * end, y + along[1] * end)
                canvas.line(colour, first, last, 0.042)


EMBLEMS: dict[str, Callable[..., None]] = {
    "band": _band,
    "disc": _disc,
    "dots": _dots,
    "eagle": _eagle,
    "hexagram": _hexagram,
    "leaf": _leaf,
    "pentagram": _pentagram,
    "shield": _shield,
    "star": _star,
    "stars": _stars,
    "taegeuk": _taegeuk,
    "trigrams": _trigrams,
    "wheel": _wheel,
}
