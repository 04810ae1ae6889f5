"""What people should know of an image before they trust its labels: corrected, audited, doubtful.

Read from the answers beside the labels and from the audits in the selection, again whenever one of
these files has changed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openmofi.corrections.answers import answers_path, read_answers
from openmofi.corrections.standing import Place, standing_of
from openmofi.select.digest import AUDITS

Mark = Literal["corrected", "audited", "doubtful"]
DOUBTFUL = 0.9
"""Score below which a label is doubtful."""


@dataclass(frozen=True)
class _Seen:
    """What the files say; `state` tells whether they are still these."""

    state: tuple[tuple[str, int, int], ...] = ()
    corrected: dict[str, list[Place]] = field(default_factory=dict)
    """By key."""
    audited: frozenset[tuple[str, str]] = frozenset()
    """(shard, key)."""


class Marks:
    """The marks of one selection."""

    def __init__(self, selection: Path):
        self._selection = selection
        self._lock = threading.Lock()
        self._seen = _Seen()

    def of(self, key: str, shard: str, caption: str, scores: Sequence[float | None]) -> list[Mark]:
        """Returns the marks of an image.

        Args:
            key: key of the pair.
            shard: its shard, as the labels call it.
            caption: its caption.
            scores: those of its labels; None: unknown.
        """
        seen = self._read()
        found: list[Mark] = []
        if any(place.fits(key, shard, caption) for place in seen.corrected.get(key, ())):
            found.append("corrected")
        if (shard, key) in seen.audited:
            found.append("audited")
        if any(score is not None and score < DOUBTFUL for score in scores):
            found.append("doubtful")
        return found

    def _read(self) -> _Seen:
        """Returns what the files say now."""
        answers = answers_path(self._selection.parents[1])
        audits = sorted(self._selection.glob(f"{AUDITS}/*/answers.jsonl"))
        state = tuple(_state(file) for file in (answers, *audits) if file.is_file())
        with self._lock:
            if state != self._seen.state:
                corrected: dict[str, list[Place]] = {}
                for place in standing_of(read_answers(answers).rows).names:
                    corrected.setdefault(place.key, []).append(place)
                checked = frozenset(pair for file in audits for pair in _checked(file))
                self._seen = _Seen(state, corrected, checked)
            return self._seen


def _state(file: Path) -> tuple[str, int, int]:
    known = file.stat()
    return str(file), known.st_mtime_ns, known.st_size


def _checked(file: Path) -> set[tuple[str, str]]:
    """Returns the (shard, key) that the answers of an audit are about."""
    found: dict[int, tuple[str, str]] = {}
    for line in file.read_text(errors="replace").splitlines():
        try:
            row = json.loads(line)
            if row.get("answer"):
                found[row["draw"]] = row["shard"] or "", row["key"] or ""
            else:
                found.pop(row.get("draw"), None)
        except (ValueError, KeyError, AttributeError):  # cut off by a kill
            continue
    return set(found.values())
