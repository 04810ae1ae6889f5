"""Progress on standard error: a bar on a terminal, elsewhere a line every 15 seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_LOG_EVERY_SECONDS = 15.0


class Progress:
    """Counts finished units and shows them: a bar on a terminal, an occasional line elsewhere."""

    def __init__(self, title: str, total: int | None, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.count = 0
        self._start = self._logged = time.monotonic()
        self._before = 0
        self._bar = None
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, note="")

    def start_at(self, count: int) -> None:
        """Counts what an earlier run finished, without adding it to this run's speed."""
        self.count = self._before = count
        if self._bar is not None:
            self._bar.update(self._task, completed=count)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds finished units; `note` replaces the text after the bar."""
        self.count += count
        now = time.monotonic()
        rate = (self.count - self._before) / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=count, note=f"{_per_second(rate)} {note}")
        elif now - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = now
            of = left = ""
            if self.total and rate:
                of = f"/{self.total:,}"
                left = f", {_duration((self.total - self.count) / rate)} left"
            line = f"{self.title}: {self.count:,}{of} {self.unit}, {_per_second(rate)}{left} {note}"
            print(line.rstrip(), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Stops drawing the bar."""
        if self._bar is not None:
            self._bar.stop()


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1g}/s"


def _duration(seconds: float) -> str:
    """Formats a duration in hours or minutes if there are at least two, else in seconds."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


@contextmanager
def progress(title: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
    """Yields a Progress and closes it on leaving, errors included."""
    bar = Progress(title, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def track(
    items: Iterable[T], title: str, *, total: int | None = None, unit: str = "rows"
) -> Iterator[T]:
    """Yields the items and shows how many have been yielded."""
    with progress(title, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()
