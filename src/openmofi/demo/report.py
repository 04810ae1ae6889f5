"""The demo's report: results and images -> one self-contained HTML file."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from openmofi.demo.tables import LABEL_ROWS, MODEL_ROWS, model_cells
from openmofi.embed import encode_places
from openmofi.evaluate.data import LabelledImages
from openmofi.evaluate.layouts import open_labelled
from openmofi.evaluate.metrics import nearest
from openmofi.images.thumbnails import thumbnail
from openmofi.kb import KnowledgeBase
from openmofi.model import load_model
from openmofi.pairs import ImageReader

_COLOURS = {
    "clip": "#c7702e",
    "contrastive": "#b59a2b",
    "supervised": "#4a78b8",
    "multitask": "#2a9d62",
}
_QUERIES, _NEIGHBOURS = 10, 6


def write_report(out: Path, results: dict[str, Any]) -> Path:
    """Writes report.html into the demo's folder and returns its path."""
    from jinja2 import Environment

    template = (files("openmofi.demo") / "report.html").read_text()
    world = open_labelled(out)
    vectors = {}
    for recipe in ("clip", "multitask"):
        encoder = load_model(str(out / "runs" / recipe / "model"))
        parts = [part for _, part, _ in encode_places(encoder, world.places)]
        vectors[recipe] = np.concatenate(parts)
    page = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            results=results,
            label_rows=LABEL_ROWS,
            model_rows={name: MODEL_ROWS[name] for name in results["models"]},
            model_cells=model_cells,
            curves=_curves(out, list(results["models"])),
            map_image=_map(vectors["multitask"], world),
            searches=list(_searches(out, world, vectors)),
            minutes=sum(results["seconds"].values()) / 60,
            funnel=json.loads((out / "i2e/select/joint/card.json").read_text())["funnel"],
        )
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _curves(out: Path, recipes: list[str]) -> str:
    """Returns the training curves as SVG."""
    figure, axes = _figure(1, 2, (9, 3.2))
    for recipe in recipes:
        lines = (out / "runs" / recipe / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        steps = [m["step"] for m in metrics]
        for axis, name in zip(axes, ("contrastive", "supervised"), strict=True):
            if name in metrics[0]:
                values = [m[name] for m in metrics]
                axis.plot(steps, values, color=_COLOURS[recipe], label=recipe)
    for axis, title in zip(axes, ("contrastive loss", "supervised loss"), strict=True):
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _map(vectors: np.ndarray, world: LabelledImages) -> str:
    """Returns a t-SNE map of the held-out photos as SVG, one colour per entity."""
    from sklearn.manifold import TSNE

    perplexity = min(30, len(vectors) // 4)
    points = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0)
    points = points.fit_transform(vectors.astype(np.float64))
    codes = world.codes(world.classes)
    figure, axis = _figure(1, 1, (9, 5.5))
    axis.scatter(*points.T, c=(codes * 37 % 101) / 101, cmap="nipy_spectral", s=9, linewidths=0)
    axis.set_axis_off()
    return _svg(figure)


def _figure(rows: int, columns: int, size: tuple[float, float]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _svg(figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _searches(
    out: Path, world: LabelledImages, vectors: dict[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
    """Yields queries, spread over the entities, with the results of two models."""
    kb = KnowledgeBase.open(out / "kb")
    reader = ImageReader(world.places.root)
    total = len(world.labels)
    queries = np.linspace(0, total - 1, _QUERIES).astype(int)
    for query in queries:
        found = {}
        for recipe, matrix in vectors.items():
            neighbours = nearest(matrix, matrix, _NEIGHBOURS, same=True)[0][query]
            found[recipe] = [_shown(world, reader, kb, int(n), int(query)) for n in neighbours]
        yield {"query": _shown(world, reader, kb, int(query), int(query)), "found": found}


def _shown(
    world: LabelledImages, reader: ImageReader, kb: KnowledgeBase, row: int, query: int
) -> dict[str, Any]:
    place = world.places.table.take(pa.array([row])).to_pylist()[0]
    entity = kb.row_of(world.labels[row])
    assert entity is not None
    return {
        "url": thumbnail(reader.read, place, side=72),
        "label": kb.texts.label[entity].as_py(),
        "id": world.labels[row],
        "right": world.labels[row] == world.labels[query],
    }
