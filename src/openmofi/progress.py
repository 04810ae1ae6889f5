"""Progress bars on standard error; silent when it is not a terminal and the work is short."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_LOG_EVERY_SECONDS = 15.0


class Progress:
    """Counts finished units and shows them: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, total: int | None, unit: str):
        self.title, self.total, self.unit = title, total, unit
        self.count = 0
        self._start = self._logged = time.monotonic()
        self._before = 0
        self._bar = None
        if sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, note="")

    def start_at(self, count: int) -> None:
        """Notes what was finished by an earlier run, which says nothing of this one's speed."""
        self.count = self._before = count
        if self._bar is not None:
            self._bar.update(self._task, completed=count)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Adds finished units; `note` replaces the text behind the bar."""
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
        """Stops drawing."""
        if self._bar is not None:
            self._bar.stop()


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1g}/s"


def _duration(seconds: float) -> str:
    """Returns a time to wait, in the largest fitting unit."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _make_bar():
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
    return Bar(*columns, console=Console(stderr=True))


@contextmanager
def progress(title: str, *, total: int | None = None, unit: str = "rows") -> Iterator[Progress]:
    """Yields a Progress that is closed whatever happens."""
    bar = Progress(title, total, unit)
    try:
        yield bar
    finally:
        bar.close()


def track(
    items: Iterable[T], title: str, *, total: int | None = None, unit: str = "rows"
) -> Iterator[T]:
    """Yields the items, counting them."""
    with progress(title, total=total, unit=unit) as bar:
        for item in items:
            yield item
            bar.advance()
