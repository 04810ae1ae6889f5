"""Parts of drawings -> SVG for a page: frames, colours, and labels that do not cover each other."""

from __future__ import annotations

import colorsys
import html
from collections.abc import Iterable, Sequence

_LETTER, _LINE = 6.0, 13.0
"""About the width and the height that a letter takes in the page's `.plot`, in pixels."""
ABOVE = ((0.0, -7.0, "middle"), (0.0, 16.0, "middle"))
"""A label above its place, else below."""
BESIDE = tuple(
    (x, 4.0 + up * _LINE, anchor)
    for up in (0, -1, 1, -2, 2, -3, 3)
    for x, anchor in ((9.0, "start"), (-9.0, "end"))
)
"""A label to the right of its place, else to the left, else a line or more above or below."""


def svg(parts: Iterable[str], width: int, height: int, title: str) -> str:
    """Returns a drawing that shrinks with the page; `title` is what a screen reader says of it."""
    return (
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(title)}" style="max-width:{width}px">{"".join(parts)}</svg>'
    )


def colour(number: int) -> str:
    """Returns a colour that can be seen on light and on dark pages.

    Steps of the golden ratio keep neighbouring numbers far apart in hue.
    """
    rgb = colorsys.hls_to_rgb(number * 0.618034 % 1, 0.5, 0.65)
    return "#" + "".join(f"{round(part * 255):02x}" for part in rgb)


def short(name: str) -> str:
    """Returns a name that fits into a drawing."""
    return name if len(name) <= 20 else name[:19] + "…"


def labels(
    wanted: Iterable[tuple[str, float, float]],
    offsets: Sequence[tuple[float, float, str]],
    *,
    width: int,
    height: int,
    taken: Iterable[tuple[float, float]] = (),
) -> list[str]:
    """Returns texts, each where it covers neither an earlier one nor a point, or else nowhere.

    Args:
        wanted: text and place of each, the most important first.
        offsets: where a text may be in relation to its place (x, y, anchor), the best first.
        width: of the drawing.
        height: of the drawing.
        taken: points that no text may cover.
    """
    boxes = [(x - 5, y - 5, x + 5, y + 5) for x, y in taken]
    parts = []
    for name, x, y in wanted:
        text = short(name)
        wide = _LETTER * len(text)
        for dx, dy, anchor in offsets:
            left = x + dx - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
            box = (left, y + dy - _LINE + 3, left + wide, y + dy + 3)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
            if inside and not any(
                box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes
            ):
                boxes.append(box)
                parts.append(
                    f'<text x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">'
                    f"{html.escape(text)}</text>"
                )
                break
    return parts
