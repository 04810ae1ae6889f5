"""An image addressed in flag heights: x from the hoist, y from the top, colours as RRGGBB."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

Point = tuple[float, float]


@dataclass
class Canvas:
    """An image addressed in flag heights."""

    width: float
    scale: int
    image: Image.Image = field(init=False)
    pen: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        size = (round(self.width * self.scale), self.scale)
        self.image = Image.new("RGBA", size, (255, 255, 255, 255))
        self.pen = ImageDraw.Draw(self.image)

    def polygon(self, colour: str, points: list[Point]) -> None:
        """Fills a polygon."""
        scaled = [(x * self.scale, y * self.scale) for x, y in points]
        self.pen.polygon(scaled, fill=rgba(colour))

    def rectangle(self, colour: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """Fills an upright rectangle."""
        # PIL also paints the last row and column, hence the -1.
        x0, y0, x1, y1 = (round(value * self.scale) for value in (x0, y0, x1, y1))
        if x1 > x0 and y1 > y0:
            self.pen.rectangle((x0, y0, x1 - 1, y1 - 1), fill=rgba(colour))

    def disc(self, colour: str, x: float, y: float, radius: float) -> None:
        """Fills a circle."""
        box = [(v + s * radius) * self.scale for s in (-1, 1) for v in (x, y)]
        self.pen.ellipse(box, fill=rgba(colour))

    def line(self, colour: str, start: Point, end: Point, width: float) -> None:
        """Draws a straight bar with square ends."""
        (x0, y0), (x1, y1) = start, end
        length = math.hypot(x1 - x0, y1 - y0)
        dx, dy = (y0 - y1) / length * width / 2, (x1 - x0) / length * width / 2
        corners = [(x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)]
        self.polygon(colour, corners)


def rgba(colour: str) -> tuple[int, int, int, int]:
    """Returns RRGGBB as an opaque colour."""
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue, 255


def circle(x: float, y: float, radius: float, count: int, angle: float = 0) -> list[Point]:
    """Returns `count` points around a circle, the first at the top turned by `angle`."""
    turns = [math.radians(angle) + 2 * math.pi * k / count for k in range(count)]
    return [(x + radius * math.sin(t), y - radius * math.cos(t)) for t in turns]
