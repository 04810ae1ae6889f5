"""Scores and what they were computed from -> report.html, one self-contained file; top1.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from openmofi.evaluate import figures
from openmofi.evaluate.benchmarks import BENCHMARKS
from openmofi.evaluate.data import CaptionedImages, LabelledImages
from openmofi.evaluate.maps import vector_maps
from openmofi.evaluate.measure import Measured
from openmofi.evaluate.results import Scores
from openmofi.evaluate.revisited import RevisitedImages

_PACKAGE = files("openmofi.evaluate")
TOP1 = "top1.json"
"""Some queries of each dataset with their nearest image, for `evaluate compare`."""


def write_report(out: Path, scores: Sequence[Scores], measured: Sequence[Measured]) -> Path:
    """Writes report.html and top1.json, and returns the page's path.

    Args:
        out: the folder.
        scores: one per dataset, and the means over folders of several.
        measured: the measured datasets with their vectors.
    """
    sections = [_section(m) for m in measured]
    page = render(
        "report.html",
        model=scores[0].model,
        metrics=list(dict.fromkeys(name for s in scores for name in s.metrics)),
        scores=scores,
        published=_published(scores),
        sections=sections,
    )
    top1 = {s["scores"].dataset: s["top1"] for s in sections if "top1" in s}
    (out / TOP1).write_text(json.dumps(top1, indent=2) + "\n", encoding="utf-8")
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def render(name: str, **values: Any) -> str:
    """Returns one of the package's pages with these values."""
    from jinja2 import Environment, FunctionLoader

    loader = FunctionLoader(lambda part: (_PACKAGE / part).read_text(encoding="utf-8"))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return environment.get_template(name).render(values)


def published_scores() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Returns {benchmark: {metric: entries with who, value, source and perhaps classes}}."""
    return json.loads((_PACKAGE / "published.json").read_text(encoding="utf-8"))


def benchmark_of(score: Scores) -> str | None:
    """Returns the benchmark of published scores that these can be compared with, if any."""
    if score.layout != "revisited":
        return score.layout
    # With a million distractors it is another benchmark.
    return None if score.notes.get("distractors") else score.notes.get("truth")


def _published(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Returns our scores and the published ones, for the benchmarks that were run."""
    run: dict[str | None, list[Scores]] = {}
    for score in scores:
        run.setdefault(benchmark_of(score), []).append(score)
    rows = []
    for benchmark, metrics in published_scores().items():
        ran = run.get(benchmark, [])
        for metric, entries in metrics.items():
            ours = [(s.dataset, s.metrics[metric]) for s in ran if metric in s.metrics]
            if ours:
                rows.append({"metric": metric, "ours": ours, "others": entries})
    return rows


def _section(measured: Measured) -> dict[str, Any]:
    """Returns what the page shows of one dataset."""
    charts = []
    for prefix in (benchmark.bars for benchmark in BENCHMARKS if benchmark.bars):
        found = {n: v for n, v in measured.scores.metrics.items() if n.startswith(prefix)}
        if len(found) > 1:  # scores that are worth comparing with each other
            bars = [{"name": n.removeprefix(prefix), "value": v} for n, v in found.items()]
            charts.append({"title": prefix.rstrip("_").replace("_", " "), "bars": bars})
    section: dict[str, Any] = {"scores": measured.scores, "bars": charts}
    if isinstance(measured.dataset, RevisitedImages):
        nearest = list(figures.revisited_top1(measured))
        return section | {"queries": list(figures.revisited_searches(measured)), "top1": nearest}
    if isinstance(measured.dataset, CaptionedImages):
        return section | {"captions": list(figures.caption_searches(measured))}
    if not isinstance(measured.dataset, LabelledImages):
        return section
    shown = figures.sample(measured)
    album = figures.LabelledAlbum(shown, figures.Album(shown.dataset.places))
    return section | {
        "images": len(shown.rows),
        "top1": list(figures.top1(shown, album)),
        "searches": list(figures.searches(shown, album)),
        "worst": list(figures.worst_queries(shown, album)),
        "confusions": figures.confusions(shown, album),
        "matrix": figures.confusion_matrix(shown),
        "answered_by": figures.answers(shown)[1],
        "maps": list(vector_maps(shown)),
    }
