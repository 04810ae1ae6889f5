"""Scores -> files: scores.json, scores.csv, and a file per task for CLIP_benchmark's own tools.

`clip_benchmark build OUT/clip_benchmark/*.json --output all.csv` joins them with its own results
(github.com/LAION-AI/CLIP_benchmark).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import openmofi
from openmofi.errors import InputError
from openmofi.evaluate.benchmarks import BENCHMARKS
from openmofi.files.folders import replace_file


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one dataset."""

    model: str
    dataset: str
    images: int
    classes: int
    unreadable: int
    """Images left out because they cannot be decoded or have no vector."""
    metrics: dict[str, float]
    layout: str = "labelled"
    """What the data was recognised as."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What a reader needs to repeat the numbers: prompts, solver, refusals by reason."""
    classes_learnt: int | None = None
    """How many classes the model learnt to tell apart, if what was written with it says so."""


def is_share(name: str) -> bool:
    """Returns whether a score is a share of 1, which can be compared and averaged over datasets.

    The others are counts and chosen settings.
    """
    return all(name not in benchmark.no_shares for benchmark in BENCHMARKS)


_OTHER = "openmofi"
"""Task of the scores for which CLIP_benchmark has no name; not all of them can be compared."""


def records(scores: Sequence[Scores]) -> Iterator[dict[str, Any]]:
    """Yields one record per dataset, with all its scores."""
    for score in scores:
        yield {
            "dataset": score.dataset,
            "model": score.model,
            "pretrained": score.model,
            "task": "evaluate",
            "metrics": score.metrics,
            "images": score.images,
            "classes": score.classes,
            "unreadable": score.unreadable,
            "layout": score.layout,
            "notes": score.notes,
            "classes_learnt": score.classes_learnt,
            "openmofi": openmofi.__version__,
        }


def clip_benchmark_records(scores: Sequence[Scores]) -> Iterator[dict[str, Any]]:
    """Yields one record per dataset and task, in CLIP_benchmark's terms."""
    tasks = [(benchmark.task, benchmark.names) for benchmark in BENCHMARKS if benchmark.task]
    known = {name for _, names in tasks for name in names}
    for score in scores:
        rest = {name: name for name in score.metrics if name not in known}
        for task, names in (*tasks, (_OTHER, rest)):
            found = {new: score.metrics[old] for old, new in names.items() if old in score.metrics}
            if found:
                yield {
                    "dataset": score.dataset,
                    "model": score.model,
                    "pretrained": score.model,
                    "task": task,
                    "metrics": found,
                    "language": "en",
                }


def read_results(folder: Path) -> list[Scores]:
    """Returns the scores that an evaluation wrote.

    Raises:
        InputError: the folder has none, or they are damaged.
    """
    path = folder / "scores.json"
    if not path.is_file():
        raise InputError(
            f"{str(folder)!r} holds no scores.json; pass a folder that `openmofi evaluate --out` "
            "wrote."
        )
    names = [field.name for field in fields(Scores)]
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list) or not found:
            raise ValueError("it lists no scores")
        return [Scores(**{name: each[name] for name in names if name in each}) for each in found]
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error}); evaluate again with --out {str(folder)!r}."
        ) from None


def write_results(out: Path, scores: Sequence[Scores]) -> None:
    """Writes the files, and replaces those of an earlier evaluation."""
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "scores.json", json.dumps(list(records(scores)), indent=2) + "\n")
    folder = out / "clip_benchmark"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for number, record in enumerate(clip_benchmark_records(scores), 1):
        name = re.sub(r"[^\w.-]+", "-", f"{number:02d}_{record['dataset']}_{record['task']}")
        _write(folder / f"{name}.json", json.dumps(record, indent=2) + "\n")
    with (out / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "dataset", "metric", "value", "images", "classes", "unreadable"))
        for s in scores:
            for name, value in s.metrics.items():
                writer.writerow(
                    (s.model, s.dataset, name, value, s.images, s.classes, s.unreadable)
                )


def _write(path: Path, text: str) -> None:
    with replace_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
