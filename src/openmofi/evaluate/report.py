"""Scores and what they were computed from -> report.html, one self-contained file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from openmofi.evaluate import figures
from openmofi.evaluate.benchmarks import BENCHMARKS
from openmofi.evaluate.data import CaptionedImages, LabelledImages
from openmofi.evaluate.measure import Measured
from openmofi.evaluate.results import Scores
from openmofi.evaluate.revisited import RevisitedImages


def write_report(out: Path, scores: Sequence[Scores], measured: Sequence[Measured]) -> Path:
    """Writes report.html and returns its path.

    Args:
        out: the folder.
        scores: one per dataset, and the means over folders of several.
        measured: the measured datasets with their vectors.
    """
    from jinja2 import Environment

    template = (files("openmofi.evaluate") / "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(
        model=scores[0].model,
        metrics=list(dict.fromkeys(name for s in scores for name in s.metrics)),
        scores=scores,
        published=_published(scores),
        sections=[_section(m) for m in measured],
    )
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _published(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Returns our scores and the published ones, for the benchmarks that were run."""
    text = (files("openmofi.evaluate") / "published.json").read_text(encoding="utf-8")
    run: dict[str | None, list[Scores]] = {}
    for score in scores:
        benchmark = score.layout
        if benchmark == "revisited":
            # With a million distractors it is another benchmark.
            benchmark = None if score.notes.get("distractors") else score.notes.get("truth")
        run.setdefault(benchmark, []).append(score)
    rows = []
    for benchmark, metrics in json.loads(text).items():
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
        return section | {"queries": list(figures.revisited_searches(measured))}
    if isinstance(measured.dataset, CaptionedImages):
        return section | {"captions": list(figures.caption_searches(measured))}
    if not isinstance(measured.dataset, LabelledImages):
        return section
    shown = figures.sample(measured)
    album = figures.LabelledAlbum(shown, figures.Album(shown.dataset.places))
    return section | {
        "images": len(shown.rows),
        "searches": list(figures.searches(shown, album)),
        "worst": list(figures.worst_queries(shown, album)),
        "confusions": figures.confusions(shown, album),
        "matrix": figures.confusion_matrix(shown),
        "answered_by": figures.answers(shown)[1],
        "map": figures.vector_map(shown),
    }
