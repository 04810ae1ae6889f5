"""The event log: one JSON object per line, one file per run, so that machines need no locks."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class EventLog:
    """Appends what happens in this run to events/<time>-<host>-<process>.jsonl."""

    def __init__(self, out: Path):
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        name = f"{now}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._file = (out / "events" / name).open("a", encoding="utf-8")

    def write(self, event: str, **fields: Any) -> None:
        """Writes one event with the time in UTC; a full disk does not stop the job here."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        try:
            self._file.write(json.dumps({**line, **fields}, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError:  # what matters are the results, which have their own check
            return

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def process_of(run: str) -> tuple[str, int]:
    """Returns the host and the process that a run's log is named after."""
    _, _, place = run.partition("-")
    host, _, process = place.rpartition("-")
    return host, int(process)


def read_events(out: Path) -> Iterator[dict[str, Any]]:
    """Yields the events of all runs, run by run; skips a line truncated by a kill."""
    for path in sorted((out / "events").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield {"run": path.stem, **json.loads(line)}
            except ValueError:
                continue
