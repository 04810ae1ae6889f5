"""Linking scores: published figures to compare them with, and the file linking.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Published:
    """A figure of a published system that links to all of Wikipedia."""

    metric: str
    system: str
    score: float
    source: str


def published(dataset: str, kind: str) -> list[Published]:
    """Returns the scores of published systems on a dataset, found by its file name or format."""
    text = files("openmofi.evaluate").joinpath("linking_published.json").read_text("utf-8")
    words = (dataset.casefold(), kind)
    return [
        Published(figure["metric"], system, score, figure["source"])
        for figure in json.loads(text)["figures"]
        if any(name in word for name in figure["datasets"] for word in words)
        for system, score in figure["scores"].items()
    ]


def write_linking(results: Sequence[Any], out: Path | str) -> Path:
    """Writes linking.json, one record per dataset, into a folder; NaN becomes null.

    Args:
        results: what `evaluate_linking` returns.
        out: the folder.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "linking.json"
    records = [_without_nan(asdict(result)) for result in results]
    text = json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
