"""The findings on paper: a table by area, plain lines where rich is missing, or JSON."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from genrec.doctor.findings import OK, PROBLEM, STATES, WARNING, Finding, worst

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "bold red"}
_PAPER = 2000  # columns of a file: as many as any line needs
_NAME = 28  # columns of a name at most


def as_json(findings: Sequence[Finding]) -> str:
    """``state`` is the worst of all, ``counts`` by state, ``findings`` in their order."""
    counts = Counter(finding.state for finding in findings)
    answer = {
        "state": worst(findings),
        "counts": {state: counts[state] for state in STATES},
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(answer, indent=2) + "\n"


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Prints a table per area. What to do stands below what was found, so that narrow windows break few commands; what
    is written into a file is not broken at all."""
    from rich.console import Console, Group
    from rich.text import Text

    console = console or Console()
    areas = groupby(findings, key=lambda finding: finding.area)
    width = min(_NAME, max((len(finding.name) for finding in findings), default=0))
    parts = [part for area, members in areas for part in (_area(area, list(members), width), Text())]
    page = Group(*parts, Text(summary(findings), style=_COLOURS[worst(findings)]))
    if console.is_terminal:
        console.print(page)
        return
    paper = Console(width=_PAPER, file=io.StringIO(), color_system=None)
    with paper.capture() as printed:
        paper.print(page)
    console.file.writelines(f"{line.rstrip()}\n" for line in printed.get().splitlines())


def _area(area: str, findings: Sequence[Finding], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=area, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column(width=7)
    table.add_column(overflow="fold", width=width)
    table.add_column(overflow="fold")
    for finding in findings:
        told = Text(finding.found)
        if finding.remedy:
            told.append(f"\n{finding.remedy}", style="cyan")
        table.add_row(Text(finding.state, style=_COLOURS[finding.state]), Text(finding.name), told)
    return table


def plain_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line per finding, and the summary."""
    for finding in findings:
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        yield f"{finding.state:<8}{finding.area}: {finding.name}: {finding.found}{remedy}"
    yield summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    """How many findings of each kind there are."""
    counts = Counter(finding.state for finding in findings)
    several = {OK: "ok", WARNING: "warnings", PROBLEM: "problems"}
    told = [f"{counts[state]} {state if counts[state] == 1 else several[state]}" for state in STATES]
    return ", ".join(told) + "."
