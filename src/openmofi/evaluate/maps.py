"""Maps of a dataset's vectors (t-SNE): by domain and within a domain by class, or all by class.

This is figure 5 of MOFI's paper, which shows GPR1200 by its six domains, and its products by class.
"""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from openmofi.evaluate.figures import Sample
from openmofi.evaluate.svg import ABOVE, colour, labels, svg

_MOST_POINTS = 2_000
"""All products of GPR1200; their layout takes some seven seconds on one core."""
_LEAST_POINTS = 8
_WIDTH, _HEIGHT, _MARGIN = 720, 480, 20
_MOST_KEYS = 16
"""Groups of which the page has a legend; more colours could not be told apart."""
_PREFERRED = "products"


def vector_maps(shown: Sample) -> Iterator[dict[str, Any]]:
    """Yields the title, a sentence, the SVG and the legend (names and colours) of each map.

    Data without domains has one map, of all classes. Otherwise the first map shows all domains, the
    second the classes of one: the products if there are any, as in the paper, else the domain with
    the most images.
    """
    everything = np.arange(len(shown.labels))
    by_class = "One colour per class; every name appears under the pointer."
    if not shown.domains:
        title = "Map of the vectors"
        yield from _map(shown.vectors, everything, shown.labels, shown.names, title, by_class)
        return
    sizes = Counter(shown.domains)
    domains = list(sizes)
    codes = np.array([domains.index(domain) for domain in shown.domains])
    title, text = "Map of the vectors by domain", "One colour per domain."
    yield from _map(shown.vectors, everything, codes, domains, title, text)
    domain = _PREFERRED if _PREFERRED in sizes else max(sizes, key=lambda name: sizes[name])
    inside = np.flatnonzero(codes == domains.index(domain))
    title = f"Map of {domain} by class"
    yield from _map(shown.vectors, inside, shown.labels, shown.names, title, by_class)


def _map(
    vectors: np.ndarray,
    rows: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    title: str,
    text: str,
) -> Iterator[dict[str, Any]]:
    """Yields the map of some rows, with a colour for each group, unless there are too few."""
    from sklearn.manifold import TSNE

    total = len(rows)
    rows = rows[np.unique(np.linspace(0, total - 1, min(total, _MOST_POINTS)).astype(np.int64))]
    if len(rows) < _LEAST_POINTS:
        return
    perplexity = min(30, (len(rows) - 1) // 3)
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=0)
    points = tsne.fit_transform(vectors[rows].astype(np.float64))
    low, high = points.min(0), points.max(0)
    size = np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN
    places = _MARGIN + (points - low) / np.maximum(high - low, 1e-9) * size
    mine = groups[rows]
    parts = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour(group)}">'
        f"<title>{html.escape(names[group])}</title></circle>"
        for (x, y), group in zip(places.tolist(), mine.tolist(), strict=True)
    ]
    # A name stands where its group is densest; large and tight groups come first. Numbers would
    # only hide what they name.
    present, wanted = np.unique(mine).tolist(), []
    for group in (group for group in present if not names[group].isdecimal()):
        own = places[mine == group]
        near = min(len(own) - 1, 1 + len(own) // 5)
        apart = np.hypot(*(own[:, None] - own[None]).transpose(2, 0, 1))
        reach = np.partition(apart, near, axis=1)[:, near]
        x, y = own[reach.argmin()].tolist()
        wanted.append(((reach.min() + 5) / np.sqrt(len(own)), names[group], x, y))
    named = [(name, x, y) for _, name, x, y in sorted(wanted)]
    parts += labels(named, ABOVE, width=_WIDTH, height=_HEIGHT)
    if len(rows) < total:
        text += f" {len(rows):,} of {total:,} images, evenly spread."
    keys = sorted((names[group], colour(group)) for group in present)
    yield {
        "title": title,
        "text": f"t-SNE. {text}",
        "svg": svg(parts, _WIDTH, _HEIGHT, title),
        "legend": keys if len(keys) <= _MOST_KEYS else [],
    }
