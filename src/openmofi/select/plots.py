"""The page's plots, as SVG without scripts: the long tail and the calibration.

Colours are CSS classes of the page, so that they follow its dark mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 260, 52, 34
_MOST_POINTS = 300


class _Axes:
    """Maps numbers to coordinates of the plot."""

    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float]):
        self.x_low, self.x_span = x_range[0], max(x_range[1] - x_range[0], 1e-9)
        self.y_low, self.y_span = y_range[0], max(y_range[1] - y_range[0], 1e-9)

    def x(self, value: float) -> float:
        return round(_LEFT + (value - self.x_low) / self.x_span * (_WIDTH - _LEFT - 10), 1)

    def y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (value - self.y_low) / self.y_span * 210, 1)

    def line(self, xs: np.ndarray, ys: np.ndarray) -> str:
        return " ".join(f"{self.x(x)},{self.y(y)}" for x, y in zip(xs, ys, strict=True))


def long_tail(images: np.ndarray) -> str:
    """Returns a log-log plot of images per entity against the entity's rank.

    Args:
        images: number of images of each entity, descending.
    """
    ranks = np.unique(np.geomspace(1, len(images), _MOST_POINTS).astype(int))
    xs, ys = np.log10(ranks), np.log10(images[ranks - 1])
    axes = _Axes((0, max(xs[-1], 1)), (0, max(ys[0], 1)))
    parts = [_x_tick(axes, p, f"{10**p:,}") for p in range(int(xs[-1]) + 1)]
    parts += [_y_tick(axes, p, f"{10**p:,}") for p in range(int(ys[0]) + 1)]
    parts.append(f'<polyline class="curve" points="{axes.line(xs, ys)}"/>')
    parts += [
        f'<circle class="dot" cx="{axes.x(x)}" cy="{axes.y(y)}" r="2.5"/>'
        for x, y in zip(xs, ys, strict=True)
        if len(xs) < 40
    ]
    parts.append(_x_title("rank of the entity"))
    return _svg(parts, "Images per entity by rank, both logarithmic")


def evidence_name(card: dict[str, Any]) -> str:
    """Returns the name of the quantity that a selection's threshold applies to."""
    return "log odds of the score" if card["weights"] else "clip_z"


def calibration(card: dict[str, Any]) -> str:
    """Returns the histograms of the evidence with own images and with mismatched ones.

    The mismatched one is scaled to the share of unshown entities that it represents.
    """
    histogram, found = card["histogram"], card["calibration"]
    observed, mismatched = (np.array(histogram[n], float) for n in ("observed", "mismatched"))
    share = found["unshown_share"] if found else 1.0
    mismatched *= share * observed.sum() / max(mismatched.sum(), 1)
    edges = np.linspace(histogram["low"], histogram["high"], len(observed) + 1)
    axes = _Axes((edges[0], edges[-1]), (0, max(observed.max(), mismatched.max(), 1)))
    low, high = edges[0], edges[-1]
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50, 1e9) if (high - low) / s <= 10)
    ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    parts = [_x_tick(axes, value, f"{value:g}") for value in ticks.tolist()]
    for name, counts in (("observed", observed), ("mismatched", mismatched)):
        xs, ys = np.repeat(edges, 2), np.r_[0, np.repeat(counts, 2), 0]
        parts.append(f'<polyline class="{name}" points="{axes.line(xs, ys)}"/>')
    threshold = card["threshold"]
    if edges[0] <= threshold <= edges[-1]:
        x = axes.x(threshold)
        parts.append(f'<line class="threshold" x1="{x}" x2="{x}" y1="10" y2="{axes.y(0)}"/>')
        end = "end" if x > _WIDTH - 120 else "start"
        shift = -5 if end == "end" else 5
        parts.append(
            f'<text x="{x + shift}" y="20" text-anchor="{end}">threshold {threshold:.2f}</text>'
        )
    parts.append(_x_title(evidence_name(card)))
    return _svg(parts, "How well images fit the chosen entities, and other images do")


def _x_tick(axes: _Axes, value: float, text: str) -> str:
    x, y = axes.x(value), axes.y(axes.y_low)
    return (
        f'<line class="grid-line" x1="{x}" x2="{x}" y1="10" y2="{y}"/>'
        f'<text x="{x}" y="{y + 15}" text-anchor="middle">{text}</text>'
    )


def _y_tick(axes: _Axes, value: float, text: str) -> str:
    y = axes.y(value)
    return (
        f'<line class="grid-line" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y}" y2="{y}"/>'
        f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
    )


def _x_title(text: str) -> str:
    return f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 4}" text-anchor="end">{text}</text>'


def _svg(parts: list[str], title: str) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">'
        + "".join(parts)
        + "</svg>"
    )
