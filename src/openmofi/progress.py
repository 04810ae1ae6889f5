"""Progress on standard error: a bar on a terminal, elsewhere a line every 15 seconds.

The speed, and the time left that follows from it, are those of this run: what an earlier run
finished moves the bar, but is no speed.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

_LOG_EVERY_SECONDS = 15.0
_PERIODS = ((1, "s"), (60, "min"), (3600, "h"))
"""Seconds of the units in which speeds and durations are written."""


class Progress:
    """Counts finished units and shows them: a bar on a terminal, an occasional line elsewhere."""

    def __init__(self, title: str, total: int | None, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.count = 0
        self._skipped = 0
        self._start = self._logged = time.monotonic()
        self._bar = None
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Bar(*columns, console=Console(stderr=True))
        self._bar.start()
        self._task = self._bar.add_task(title, total=total, note="")

    def skip(self, count: int) -> None:
        """Counts units that take this run no work, such as those that an earlier run finished."""
        if self.count == self._skipped:  # the work begins only now
            self._start = time.monotonic()
        self.count += count
        self._skipped += count
        self._show("")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds finished units; `note` replaces the text after the bar."""
        self.count += count
        self._show(note)

    def speed(self, now: float) -> float:
        """Returns the units a second that this run has finished until `now`."""
        return (self.count - self._skipped) / max(now - self._start, 1e-9)

    def _show(self, note: str) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.count, note=self._told(now, note))
        elif now - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = now
            count = f"{self.count:,}/{self.total:,}" if self.total else f"{self.count:,}"
            line = f"{self.title}: {count} {self.unit}, {self._told(now, note)}"
            with suppress(OSError):  # nobody reads it any more, but the work goes on
                print(line.removesuffix(", "), file=sys.stderr, flush=True)

    def _told(self, now: float, note: str) -> str:
        """Returns the speed, the time left, and the note, as far as there are any."""
        speed, left = self.speed(now), (self.total or 0) - self.count
        told = [rate(speed)] if speed else []
        if speed and left > 0:
            told.append(f"{duration(left / speed)} left")
        return ", ".join(told + [note] * bool(note))

    def close(self) -> None:
        """Stops drawing the bar."""
        if self._bar is not None:
            with suppress(OSError):  # the terminal is gone
                self._bar.stop()


def rate(per_second: float, unit: str = "") -> str:
    """Formats a speed as people write it: 1,200/s, 12/s, 0.3/s, 2.4/min.

    Args:
        per_second: the speed.
        unit: what is counted, such as " images".
    """
    for seconds, period in _PERIODS:
        number = per_second * seconds
        if number >= 0.1 or period == "h":
            break
    shown = f"{number:,.0f}" if number >= 9.95 else f"{number:.1f}"
    return f"{shown.removesuffix('.0')}{unit}/{period}"


def duration(seconds: float) -> str:
    """Formats a duration in hours or minutes if there are at least two, else in seconds."""
    for size, unit in reversed(_PERIODS[1:]):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
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
