"""Resolves a path given by the user: an index, or a folder with an index and reports."""

from __future__ import annotations

from pathlib import Path

from openmofi.search.snapshot import is_index


def find_shown(path: Path) -> tuple[Path, list[Path]]:
    """Returns (the index, the reports that belong to it).

    A folder such as a demo's contains `index/`; its report.html, the labels.html linked from that,
    and the reports of its runs are shown, too.
    """
    if is_index(path) or not is_index(path / "index"):
        return path, []
    reports = [path / "report.html", path / "labels.html", *sorted(path.glob("runs/*/report.html"))]
    return path / "index", [report for report in reports if report.is_file()]
