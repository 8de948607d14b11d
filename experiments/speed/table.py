"""Rows of results: as lines on the screen, as CSV and JSON, as the Markdown table of the README."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: written by `make bench` -->", "<!-- end of results -->"
_COLUMNS = ("", "median (range)", "ratio (range)", "target", "times the floor", "peak memory", "others' share")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender at one task. ``ratio``: times faster than ``reference``; ``floor``: times slower than the floor.

    ``foreign`` is the share of the processor other processes took; ``busy`` says that it was too much. A contender
    that did not run has no ``value`` and a ``note``.
    """

    section: str
    task: str
    contender: str
    unit: str
    reference: str = ""
    ours: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    target: str = ""
    floor: float | None = None
    peak_bytes: int | None = None
    foreign: float | None = None
    busy: bool = False
    settings: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.section, self.task, self.contender

    @property
    def met(self) -> bool | None:
        """Whether a target such as "22x", "< 1 s" or "< 300 MB" is reached; None where there is none."""
        return None if not self.target or self.value is None else _met(self)

    def cells(self) -> list[str]:
        """What the table shows of a row, without its settings."""
        name = f"**{self.contender}**" if self.ours else self.contender
        if self.value is None:
            return [name, self.note, "", "", "", "", ""]
        verdict = {True: " ✓", False: " ✗", None: ""}[self.met]
        share = "" if self.foreign is None else f"{self.foreign:.1%}" + (" (busy)" if self.busy else "")
        return [
            name,
            f"{span(self.value, self.low, self.high)} {self.unit}",
            ""
            if self.ratio is None or self.contender == self.reference
            else span(self.ratio, self.ratio_low, self.ratio_high) + "x",
            self.target + verdict,
            "" if self.floor is None else number(self.floor),
            "" if self.peak_bytes is None else f"{number(self.peak_bytes / 1e6)} MB",
            share,
        ]

    def line(self) -> str:
        """One line for the screen."""
        name, *cells = self.cells()
        shown = ", ".join(
            f"{label}{cell}"
            for label, cell in zip(("", "ratio ", "target ", "floor x", "peak ", "others "), cells, strict=True)
            if cell
        )
        return f"  {name.strip('*'):<34} {shown}" + (f"  [{self.note}]" if self.note and self.value is not None else "")


def _met(row: Row) -> bool | None:
    """``at least`` a ratio ("22x"), or ``at most`` a time, a share of time or a memory ("< 1 s", "< 300 MB")."""
    for part in row.target.split(","):
        words = part.split()
        if len(words) == 1 and part.endswith("x"):
            reached = row.ratio is not None and row.ratio >= float(part[:-1])
        elif len(words) == 3 and words[0] == "<" and words[2] == "MB":
            reached = row.peak_bytes is not None and row.peak_bytes < float(words[1]) * 1e6
        elif len(words) == 3 and words[0] == "<" and words[2] == row.unit:
            assert row.value is not None
            reached = row.value < float(words[1])
        else:
            return None
        if not reached:
            return False
    return True


def number(value: float) -> str:
    """Three significant digits, thousands separated."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    return f"{value:,.{digits}f}"


def span(middle: float, low: float | None, high: float | None) -> str:
    if low is None or high is None or low == high:
        return number(middle)
    return f"{number(middle)} ({number(low)} to {number(high)})"


def markdown(rows: Sequence[Row], machine: str) -> str:
    """A table for each task, then the settings of every contender."""
    lines = [f"Machine: {machine}.", ""]
    for section, task in dict.fromkeys((row.section, row.task) for row in rows):
        chosen = [row for row in rows if (row.section, row.task) == (section, task)]
        lines += [f"### {task}", "", "| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
        lines += ["| " + " | ".join(row.cells()) + " |" for row in chosen]
        reference = chosen[0].reference
        lines += ["", f"Ratios are against {reference}." if reference else ""]
        described = [row for row in chosen if row.settings or (row.note and row.value is not None)]
        lines += [f"- {row.contender}: {'; '.join(filter(None, (row.settings, row.note)))}." for row in described]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def merge(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """The old rows with those of re-measured tasks replaced, in the order of first appearance."""
    measured = {(row.section, row.task): [] for row in new}
    for row in new:
        measured[row.section, row.task].append(row)
    merged: list[Row] = []
    for task in dict.fromkeys((row.section, row.task) for row in [*old, *new]):
        merged += measured.get(task) or [row for row in old if (row.section, row.task) == task]
    return merged


def save(rows: Sequence[Row], machine: dict[str, Any], folder: Path) -> None:
    """``results.csv`` and ``results.json`` (with the machine)."""
    folder.mkdir(parents=True, exist_ok=True)
    records = [asdict(row) for row in rows]
    (folder / "results.json").write_text(json.dumps({"machine": machine, "rows": records}, indent=1) + "\n")
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [item.name for item in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)


def load(folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """What was saved there before; nothing where there is nothing."""
    path = folder / "results.json"
    if not path.exists():
        return [], {}
    saved = json.loads(path.read_text())
    return [Row(**record) for record in saved["rows"]], saved["machine"]


def write_into(readme: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Replaces what stands between two marks of a README; a file without them is left alone."""
    old = readme.read_text() if readme.exists() else ""
    begin, end = marks
    if begin not in old or end not in old:
        return
    head, rest = old.split(begin, 1)
    tail = rest.split(end, 1)[1]
    readme.write_text(f"{head}{begin}\n{text.strip()}\n{end}{tail}")
