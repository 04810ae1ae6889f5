"""Outputs of `evaluate` -> one page that compares the runs, with figures 1 and 4 of MOFI's paper.

Nothing is encoded again: a folder's scores.json has its scores and how many classes its model
learnt, its top1.json some queries with their nearest image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmofi.errors import InputError
from openmofi.evaluate.benchmarks import BENCHMARKS
from openmofi.evaluate.classes_plot import Point, plot_by_classes
from openmofi.evaluate.report import TOP1, benchmark_of, published_scores, render
from openmofi.evaluate.results import Scores, is_share, read_results
from openmofi.files.folders import local_file, replace_file


@dataclass(frozen=True)
class ComparedRun:
    """What was measured of one model."""

    name: str
    scores: dict[str, Scores]
    """By dataset."""
    top1: dict[str, list[dict[str, Any]]]
    """Queries of each dataset with their nearest image; empty if an older version measured."""
    classes: int | None
    """How many classes the model learnt to tell apart, if known."""

    @property
    def models(self) -> list[str]:
        """Names of the measured model, normally one."""
        return sorted({score.model for score in self.scores.values()})


def compare(
    results: Mapping[str, Path | str],
    *,
    out: Path | str,
    classes: Mapping[str, int] | None = None,
) -> list[ComparedRun]:
    """Writes a page that compares runs, and returns them.

    Args:
        results: name of each run -> folder that `evaluate` wrote for it.
        out: the HTML file to write.
        classes: name -> number of classes that the run's model learnt; without it, what was
            recorded when the model was measured.

    Raises:
        InputError: there are no runs, a folder holds no scores, a name in `classes` is no run,
            `out` is a folder, or a dataset is not the same in all runs.
    """
    given, place = dict(classes or {}), local_file(out)
    if not results:
        raise InputError("Nothing to compare; pass folders that `openmofi evaluate --out` wrote.")
    if unknown := sorted(given.keys() - results.keys()):
        raise InputError(f"There is no run {unknown[0]!r}; expected some of {', '.join(results)}.")
    if wrong := [name for name, number in given.items() if number < 1]:
        raise InputError(f"{wrong[0]!r} cannot have learnt {given[wrong[0]]} classes.")
    runs = [_open(name, Path(folder), given.get(name)) for name, folder in results.items()]
    datasets = dict.fromkeys(dataset for run in runs for dataset in run.scores)
    sections = [_section(dataset, runs) for dataset in datasets]
    page = render("compare.html", runs=runs, datasets=sections)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(place) as partial:
        partial.write_text(page, encoding="utf-8")
    return runs


def _open(name: str, folder: Path, classes: int | None) -> ComparedRun:
    scores = {score.dataset: score for score in read_results(folder)}
    recorded = {score.classes_learnt for score in scores.values()}
    if classes is None and len(recorded) == 1:
        classes = recorded.pop()
    top1 = {}
    if (folder / TOP1).is_file():
        try:
            top1 = json.loads((folder / TOP1).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{str(folder / TOP1)!r} is damaged ({error}); evaluate again with --out "
                f"{str(folder)!r}."
            ) from None
    return ComparedRun(name, scores, top1, classes)


def _section(dataset: str, runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Returns what the page shows of one dataset."""
    runs = [run for run in runs if dataset in run.scores]
    scores = [run.scores[dataset] for run in runs]
    contents = [_content(score) for score in scores]
    for run, content in zip(runs, contents, strict=True):
        if content != contents[0]:
            raise InputError(
                f"{dataset!r} is {contents[0]} for {runs[0].name!r}, but {content} for "
                f"{run.name!r}; evaluate both on the same data, or give one of them another name."
            )
    rows = []
    for metric in dict.fromkeys(name for score in scores for name in score.metrics):
        values = [score.metrics.get(metric) for score in scores]
        known = [value for value in values if value is not None]
        best = max(known) if is_share(metric) and len(known) > 1 else None
        rows.append({"metric": metric, "values": values, "best": best})
    unreadable = {run.name: s.unreadable for run, s in zip(runs, scores, strict=True)}
    return {
        "name": dataset,
        "content": contents[0],
        "unreadable": unreadable if any(unreadable.values()) else {},
        "runs": [run.name for run in runs],
        "rows": rows,
        "curve": _curve(scores, runs),
        "top1": _top1(dataset, runs),
    }


def _content(score: Scores) -> str:
    """Returns what was measured on, which must be the same in all runs."""
    classes = f" of {score.classes:,} classes" if score.classes else ""
    more = score.notes.get("distractors")
    beside = f" beside {more:,} distractors" if more else ""
    total = score.images + score.unreadable
    return f"{total:,} images{classes}{beside}, layout {score.layout}"


def _curve(scores: Sequence[Scores], runs: Sequence[ComparedRun]) -> dict[str, Any] | None:
    """Returns mAP by number of classes, or None if no run has an mAP."""
    metrics = [b.curve for b in BENCHMARKS if b.curve and scores[0].layout in b.layouts]
    metric = next((m for m in metrics if any(m in s.metrics for s in scores)), None)
    if metric is None:
        return None
    measured = [
        (run, score.metrics[metric])
        for run, score in zip(runs, scores, strict=True)
        if metric in score.metrics
    ]
    points = [Point(r.name, r.classes, value) for r, value in measured if r.classes is not None]
    entries = published_scores().get(benchmark_of(scores[0]) or "", {}).get(metric, [])
    # Published models alone would be no plot of these runs.
    shown = [entry for entry in entries if "classes" in entry] if points else []
    points += [Point(e["who"], e["classes"], e["value"], published=True) for e in shown]
    return {
        "metric": metric,
        "svg": plot_by_classes(points, metric) if points else "",
        "left_out": [run.name for run, _ in measured if run.classes is None],
        "published": [f"{entry['who']}: {entry['source']}" for entry in shown],
    }


def _top1(dataset: str, runs: Sequence[ComparedRun]) -> dict[str, Any]:
    """Returns the queries that all runs have, and for each run their nearest images."""
    having = [run for run in runs if run.top1.get(dataset)]
    found = [{row["key"]: row for row in run.top1[dataset]} for run in having]
    shared = [key for key in found[0] if all(key in rows for rows in found)] if found else []
    return {
        "queries": [found[0][key]["query"] for key in shared],
        "rows": [
            (run.name, [rows[key]["found"] for key in shared])
            for run, rows in zip(having, found, strict=True)
        ],
        "left_out": len(set().union(*found)) - len(shared),
        "missing": [run.name for run in runs if run not in having] if having else [],
    }
