"""Draws a flag from one line of text: its proportions, then shapes painted over each other.

In: `3:2; field DA251D; star FFFF00 .75 .5 .3`. Out: a flat RGBA image of the requested width.
Lengths are in flag heights, x from the hoist, y from the top, angles in degrees clockwise;
colours are RRGGBB. Only swallow tails leave transparent pixels.
Shapes follow the flags' published construction sheets; small emblems are simplified.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from PIL import Image

from openmofi.demo.canvas import Canvas, Point
from openmofi.demo.emblems import EMBLEMS

if TYPE_CHECKING:
    from openmofi.demo.entities import DemoEntity

_SUPERSAMPLING = 4


def draw_flag(entity: DemoEntity, width: int) -> Image.Image:
    """Returns the entity's flag as a flat RGBA image `width` pixels wide."""
    return draw_spec(entity.flag, width)


def draw_spec(spec: str, width: int) -> Image.Image:
    """Returns the flag that `spec` describes as a flat RGBA image `width` pixels wide."""
    proportions, *shapes = [part.strip() for part in spec.split(";")]
    ratio = _ratio(proportions)
    height = max(1, round(width / ratio))
    canvas = Canvas(ratio, height * _SUPERSAMPLING)
    for shape in shapes:
        name, *arguments = shape.split()
        SHAPES[name](canvas, *arguments)
    return canvas.image.resize((width, height), Image.Resampling.BOX)


def aspect(spec: str) -> float:
    """Returns width divided by height of the flag that `spec` describes."""
    return _ratio(spec.partition(";")[0])


def _ratio(proportions: str) -> float:
    width, height = proportions.split(":")
    return int(width) / int(height)


def _shares(stripes: tuple[str, ...]) -> Iterator[tuple[str, float, float]]:
    """Yields (colour, start, end) as shares of the whole; `RRGGBB*2` is twice as wide."""
    parts = [stripe.partition("*") for stripe in stripes]
    widths = [float(width or 1) for _, _, width in parts]
    start = 0.0
    for (colour, _, _), width in zip(parts, widths, strict=True):
        yield colour, start / sum(widths), (start + width) / sum(widths)
        start += width


# ---- fields and stripes -------------------------------------------------------------------


def _field(canvas: Canvas, colour: str) -> None:
    canvas.rectangle(colour, 0, 0, canvas.width, 1)


def _horizontal(canvas: Canvas, *stripes: str) -> None:
    for colour, start, end in _shares(stripes):
        canvas.rectangle(colour, 0, start, canvas.width, end)


def _vertical(canvas: Canvas, *stripes: str) -> None:
    for colour, start, end in _shares(stripes):
        canvas.rectangle(colour, start * canvas.width, 0, end * canvas.width, 1)


def _quarters(canvas: Canvas, *colours: str) -> None:
    for index, colour in enumerate(colours):
        x, y = index % 2 * canvas.width / 2, index // 2 / 2
        canvas.rectangle(colour, x, y, x + canvas.width / 2, y + 0.5)


def _checks(canvas: Canvas, first: str, second: str, count: str) -> None:
    side = 1 / int(count)
    for row in range(int(count)):
        for column in range(int(count)):
            colour = second if (row + column) % 2 else first
            x, y = column * side, row * side
            canvas.rectangle(colour, x, y, x + side, y + side)


def _diagonals(canvas: Canvas, first: str, second: str, count: str) -> None:
    """Paints stripes that rise towards the fly, the first colour in the upper hoist corner."""
    step = 2 / int(count)
    for index in range(int(count)):
        near, far = index * step, (index + 1) * step
        colour = second if index % 2 else first
        canvas.polygon(colour, [(near, 0), (far, 0), (0, far), (0, near)])


def _rect(canvas: Canvas, colour: str, *box: str) -> None:
    x0, y0, x1, y1 = map(float, box)
    canvas.rectangle(colour, x0, y0, x1, y1)


def _poly(canvas: Canvas, colour: str, *numbers: str) -> None:
    values = [float(number) for number in numbers]
    canvas.polygon(colour, list(zip(values[::2], values[1::2], strict=True)))


def _triangle(canvas: Canvas, colour: str, depth: str) -> None:
    canvas.polygon(colour, [(0, 0), (float(depth), 0.5), (0, 1)])


def _teeth(canvas: Canvas, colour: str, inner: str, outer: str, count: str) -> None:
    """Paints a hoist with a serrated edge, as on the flags of Qatar and Bahrain."""
    edge: list[Point] = [(0, 0)]
    for index in range(int(count)):
        edge.append((float(inner), index / int(count)))
        edge.append((float(outer), (index + 0.5) / int(count)))
    canvas.polygon(colour, [*edge, (float(inner), 1), (0, 1)])


def _swallow(canvas: Canvas, depth: str) -> None:
    """Cuts a swallow tail out of the fly."""
    width, scale = canvas.width, canvas.scale
    notch = [(width, 0.0), (width - float(depth), 0.5), (width, 1.0)]
    canvas.pen.polygon([(x * scale, y * scale) for x, y in notch], fill=(0, 0, 0, 0))


# ---- crosses ------------------------------------------------------------------------------


def _cross(canvas: Canvas, colour: str, x: str, y: str, width: str) -> None:
    half = float(width) / 2
    canvas.rectangle(colour, float(x) - half, 0, float(x) + half, 1)
    canvas.rectangle(colour, 0, float(y) - half, canvas.width, float(y) + half)


def _plus(canvas: Canvas, colour: str, x: str, y: str, reach: str, width: str) -> None:
    cx, cy, arm, half = float(x), float(y), float(reach), float(width) / 2
    canvas.rectangle(colour, cx - arm, cy - half, cx + arm, cy + half)
    canvas.rectangle(colour, cx - half, cy - arm, cx + half, cy + arm)


def _bolnisi(canvas: Canvas, colour: str, x: str, y: str, reach: str) -> None:
    """Paints a small cross with widening arms, as in the corners of Georgia's flag."""
    cx, cy, arm = float(x), float(y), float(reach)
    for angle in range(0, 360, 90):
        narrow, wide = 0.22 * arm, 0.5 * arm
        turn = math.radians(angle)
        wedge = [(-narrow, 0.0), (narrow, 0.0), (wide, arm), (-wide, arm)]
        cos, sin = math.cos(turn), math.sin(turn)
        canvas.polygon(colour, [(cx + a * cos - b * sin, cy + a * sin + b * cos) for a, b in wedge])


def _saltire(canvas: Canvas, colour: str, width: str) -> None:
    right = canvas.width
    # The bars start outside the flag to hide their square ends.
    for top, bottom in ((-0.5, 1.5), (1.5, -0.5)):
        canvas.line(colour, (-0.5 * right, top), (1.5 * right, bottom), float(width))


def _union(canvas: Canvas, x: str, y: str, width: str, height: str) -> None:
    """Paints the Union Flag in a box; its red diagonals are counterchanged."""
    box = Canvas(float(width) / float(height), round(float(height) * canvas.scale))
    right = box.width
    _field(box, "012169")
    _saltire(box, "FFFFFF", "0.2")
    red = Canvas(right, box.scale)
    red.image.paste(box.image)
    _saltire(red, "C8102E", "0.133")
    mask = Canvas(right, box.scale)
    _field(mask, "000000")
    middle = (right / 2, 0.5)
    for first, second in (
        ((right, 0.5), (right, 1.0)),
        ((right / 2, 1.0), (0.0, 1.0)),
        ((0.0, 0.5), (0.0, 0.0)),
        ((right / 2, 0.0), (right, 0.0)),
    ):
        mask.polygon("FFFFFF", [middle, first, second])
    box.image.paste(red.image, mask=mask.image.convert("L"))
    _cross(box, "FFFFFF", str(right / 2), "0.5", "0.333")
    _cross(box, "C8102E", str(right / 2), "0.5", "0.2")
    canvas.image.paste(box.image, (round(float(x) * canvas.scale), round(float(y) * canvas.scale)))


SHAPES: dict[str, Callable[..., None]] = {
    **EMBLEMS,
    "bolnisi": _bolnisi,
    "checks": _checks,
    "cross": _cross,
    "diagonals": _diagonals,
    "field": _field,
    "h": _horizontal,
    "plus": _plus,
    "poly": _poly,
    "quarters": _quarters,
    "rect": _rect,
    "saltire": _saltire,
    "swallow": _swallow,
    "teeth": _teeth,
    "triangle": _triangle,
    "union": _union,
    "v": _vertical,
}
