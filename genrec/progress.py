"""Progress of training and evaluation: a bar on a terminal, an occasional line in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger("genrec.trainers")

_LINE_SECONDS = 20.0  # at most one line in this time where there is no terminal
_BAR_SECONDS = 0.2


def duration(seconds: float) -> str:
    """Readable seconds: ``12.3 s``, ``4 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Bar:
    """Counts ``total`` pieces of work. ``details`` is asked for only when something is shown, since it may wait for a
    GPU."""

    def __init__(self, description: str, total: int, *, enabled: bool = True, begin: int = 0) -> None:
        self.description, self.total, self.done, self.begin = description, total, begin, begin
        self.enabled = enabled
        self.started = self.shown = time.monotonic()
        self._bar: Progress | None = None
        if enabled and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            tail = (TimeRemainingColumn(), TextColumn("{task.fields[details]}"))
            from rich.console import Console

            self._bar = Progress(*columns, *tail, transient=True, console=Console(stderr=True), auto_refresh=False)
            self._task = self._bar.add_task(description, total=total, completed=begin, details="")
            self._bar.start()

    def advance(self, details: Callable[[], str] = str) -> None:
        self.done += 1
        if not self.enabled:
            return
        now = time.monotonic()
        if now - self.shown < (_LINE_SECONDS if self._bar is None else _BAR_SECONDS):
            return
        self.shown = now
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, details=details(), refresh=True)
            return
        elapsed = now - self.started
        left = elapsed / max(self.done - self.begin, 1) * (self.total - self.done)
        text = ", ".join(part for part in (details(), f"{duration(elapsed)}, about {duration(left)} left") if part)
        logger.info("%s: %d of %d, %s", self.description, self.done, self.total, text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def track(items: Iterable[Any], description: str, *, enabled: bool = True) -> Iterator[Any]:
    """Iterates with a bar; the number of items is taken from ``len`` where there is one."""
    total = len(items) if isinstance(items, Sized) else 0
    bar = Bar(description, total, enabled=enabled)
    try:
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.close()
