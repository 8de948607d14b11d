"""How far fetches have come, for those who watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


@contextmanager
def progress_bars(enabled: bool) -> Iterator[Progress]:
    """Bars on standard error, of which threads may have one each; nothing is shown where that is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not (enabled and console.is_terminal), transient=True) as bars:
        yield bars


@contextmanager
def one_of(bars: Progress, name: str, total: int | None, begin: int) -> Iterator[Callable[[int], None]]:
    """A bar of its own while bytes come; gives the function to tell how many more."""
    task = bars.add_task(name, total=total, completed=begin)
    try:
        yield lambda count: bars.advance(task, count)
    finally:
        bars.update(task, visible=False)


@contextmanager
def progress_bar(name: str, total: int | None, begin: int, enabled: bool) -> Iterator[Callable[[int], None]]:
    """The only bar there is."""
    with progress_bars(enabled) as bars, one_of(bars, name, total, begin) as advance:
        yield advance
