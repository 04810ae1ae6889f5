"""What every row of own_code.py uses: findings, rivals that may be missing, and ratios."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from reading import taking_turns

ROUNDS = 5


class Finding(NamedTuple):
    """One rival of one row."""

    rival: str
    ratio: float | None
    """Its CPU time over ours; None: a matter of what comes out, not of time."""
    note: str = ""


Row = Callable[[Path], Iterator[Finding]]


def rival(module: str, package: str | None = None) -> Any:
    """Returns a module, or None with a note on standard error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError:
        print(f"skipped: {package or module} is not installed", file=sys.stderr)
        return None


def brings(package: str) -> str:
    """Returns "[+N]", the packages that come with one beside those that openmofi needs."""
    return f"[+{len(_closure(package) - _closure('openmofi'))}]"


@functools.cache
def _closure(package: str) -> frozenset[str]:
    found, waiting = set(), [package]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        with contextlib.suppress(PackageNotFoundError):
            needs = [Requirement(text) for text in requires(name) or ()]
            waiting += [r.name for r in needs if not r.marker or r.marker.evaluate({"extra": ""})]
    return frozenset(found)


def ratios(
    ours: Callable[[], object], rivals: dict[str, Callable[[], object]], rounds: int = ROUNDS
) -> dict[str, float]:
    """Returns each rival's CPU time over ours, medians of rounds that take turns."""
    gc.collect()
    gc.freeze()  # what the inputs hold is not a rival's to walk through again and again
    seconds = taking_turns({"ours": ours} | rivals, rounds)
    return {name: seconds[name] / seconds["ours"] for name in rivals}
