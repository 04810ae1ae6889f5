"""Scores of several runs and how many classes each learnt -> a plot (figure 1 of MOFI's paper)."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from openmofi.evaluate.svg import BESIDE, colour, labels, svg

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 24, 16, 46
_MOST_TICKS = 8


@dataclass(frozen=True)
class Point:
    """One run, or one published model."""

    name: str
    classes: int
    score: float
    published: bool = False


def plot_by_classes(points: Sequence[Point], score: str) -> str:
    """Returns the scores over the numbers of classes as SVG; the numbers are on a log scale."""
    numbers = [math.log10(max(point.classes, 1)) for point in points]
    margin = max(0.08 * (max(numbers) - min(numbers)), 0.15)
    start, end = min(numbers) - margin, max(numbers) + margin
    values = [point.score for point in points]
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if max(values) - min(values) <= 5 * s)
    first, last = math.floor(min(values) / step - 0.3), math.ceil(max(values) / step + 0.3)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for number in range(first, last + 1):
        y = bottom - (number - first) / (last - first) * (bottom - _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        value = f"{number * step:.2f}"
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    for number in _ticks(start, end):
        x = _LEFT + (math.log10(number) - start) / (end - start) * (right - _LEFT)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{number:,}</text>')
    middle = (_LEFT + right) / 2
    said = "classes learnt (log scale)"
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{said}</text>')
    places = [
        (
            _LEFT + (number - start) / (end - start) * (right - _LEFT),
            bottom - (point.score / step - first) / (last - first) * (bottom - _TOP),
        )
        for point, number in zip(points, numbers, strict=True)
    ]
    for i, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
        tone = colour(i)
        fill = "Canvas" if point.published else tone
        said = html.escape(f"{point.name}: {point.score:.4f}, {point.classes:,} classes")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" stroke="{tone}" stroke-width="2" '
            f'style="fill:{fill}"><title>{said}</title></circle>'
        )
    named = [(point.name, x, y) for point, (x, y) in zip(points, places, strict=True)]
    parts += labels(named, BESIDE, width=_WIDTH, height=bottom, taken=places)
    return svg(parts, _WIDTH, _HEIGHT, f"{score} by number of classes learnt")


def _ticks(start: float, end: float) -> list[int]:
    """Returns round numbers between two logarithms, as many as have room."""
    for factors in (range(1, 10), (1, 2, 5), (1,)):
        every = [factor * 10**power for power in range(19) for factor in factors]
        found = [number for number in every if start <= math.log10(number) <= end]
        if len(found) <= _MOST_TICKS:
            return found
    return found[:: -(-len(found) // _MOST_TICKS)]
