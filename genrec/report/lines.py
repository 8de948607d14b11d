"""Lines for people: a run, or a sweep, as one line of a table on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from genrec.records import (
    FAILED,
    FINISHED,
    HISTORY_FILE,
    KILLED,
    PRUNED,
    RUN_FILE,
    RUNNING,
    RunRecord,
    SweepRecord,
)
from genrec.report.scales import format_seconds
from genrec.report.selection import metric_of
from genrec.report.trials import best_run, objective_value
from genrec.tables import TEST_PREFIX, metric_columns, short_names

STYLES = {RUNNING: "cyan", FINISHED: "green", FAILED: "red", KILLED: "yellow", PRUNED: "magenta"}
USUAL_METRICS = ("test/recall@10", "test/auc", "test/rmse")
UNTOLD = ("model", "data", "progress", "runs_dir", "cache_dir", "data_root", "resume")  # have a column, compute nothing
GAP = "  "
LEAST_CHANGED, MOST_CHANGED = 24, 60  # characters of what was changed
SPARE = ("time", "data")  # columns that a narrow terminal does without
NAMES = 2  # of models or data sets that a line names


@dataclass(frozen=True)
class Group:
    """What one line stands for: a run, or the runs of a sweep that were chosen, of ``total``. ``varied`` are overrides
    to be told first, since they tell a run from its neighbours."""

    folder: Path
    runs: tuple[RunRecord, ...]
    sweep: SweepRecord | None = None
    total: int = 1
    varied: tuple[str, ...] = ()

    @property
    def objective(self) -> tuple[str, str] | None:
        """The monitored metric and its direction."""
        if self.sweep is not None:
            return next(iter(self.sweep.objectives), None)
        return (self.runs[0].monitor, self.runs[0].direction) if self.runs[0].monitor else None

    @property
    def over_seeds(self) -> bool:
        return self.sweep is not None and self.sweep.swept == ["seed"]

    @property
    def best(self) -> RunRecord:
        """The run whose numbers stand in the line."""
        found = best_run(self.runs, *self.objective) if self.objective else None
        return found or self.runs[0]

    def metric(self, name: str) -> float | None:
        """Of the best run; the mean over the runs where they differ in their seed only."""
        if not self.over_seeds:
            return metric_of(self.best, name)
        values = [value for run in self.runs if (value := metric_of(run, name)) is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Line:
    """A line of the table: its cells as text, and notes that stand below it with their style."""

    when: str
    state: str
    model: str
    data: str
    monitored: tuple[str, str]
    tested: tuple[str, str]
    time: str
    changed: str
    folder: str
    notes: list[tuple[str, str]] = field(default_factory=list)
    size: str = ""

    def with_size(self, size: str) -> Line:
        """With the size of its folder, which gets a column."""
        return replace(self, size=size)


def relative_time(then: float, now: float) -> str:
    """How long ago, for people: ``5 min ago``; a date beyond a month."""
    ago = max(0.0, now - then)
    if ago > 30 * 86400:
        return datetime.fromtimestamp(then).strftime("%Y-%m-%d")
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if ago >= size:
            return f"{ago / size:.0f} {unit} ago"
    return "now"


def run_seconds(run: RunRecord, now: float) -> float | None:
    """How long a run took, or has taken: by its own clock where it has finished, else until it last wrote."""
    if run.state == FINISHED and run.seconds.get("total"):
        return float(run.seconds["total"])
    end = now if run.state == RUNNING else run.ended or last_write(run)
    return max(0.0, end - run.started) if run.started else None


def last_write(run: RunRecord) -> float:
    """When a run last wrote of its progress; seconds since 1970."""
    found = (run.folder / name for name in (HISTORY_FILE, "run.log", RUN_FILE))
    return max((path.stat().st_mtime for path in found if path.exists()), default=run.started)


def changed_words(run: RunRecord, first: Sequence[str] = ()) -> str:
    """What was changed on the command line, keys shortened to their last part; model and data have their own place."""
    given = {name: run.overrides[name] for name in (*first, *run.overrides) if name in run.overrides}
    told = {name: value for name, value in given.items() if name not in UNTOLD and not name.startswith("hydra.")}
    return " ".join(f"{short}={value}" for short, value in zip(short_names(list(told)), told.values(), strict=True))


def line_of(group: Group, sort: str, now: float, errors: bool) -> Line:
    """The cells of a group."""
    run, objective = group.best, group.objective
    tested = sort if sort.startswith(TEST_PREFIX) else _headline(run)
    times = [seconds for member in group.runs if (seconds := run_seconds(member, now)) is not None]
    return Line(
        when=relative_time(max(member.started for member in group.runs), now),
        state=group.sweep.state if group.sweep else run.state,
        model=_names(member.model for member in group.runs),
        data=_names(member.data for member in group.runs),
        monitored=(objective[0], _number(_monitored(group))) if objective else ("", "-"),
        tested=(tested, _number(group.metric(tested))) if tested else ("", "-"),
        time=format_seconds(sum(times)) if times else "-",
        changed=_of_sweep(group) if group.sweep else one_line(changed_words(run, group.varied)),
        folder=str(group.folder),
        notes=_notes(group, now, errors),
    )


def render(lines: Sequence[Line], width: int | None) -> list[Text]:
    """The lines as text for a terminal of ``width`` columns; None is as wide as needed.

    Where the folder does not fit it stands on a line of its own, so that it can be copied; where that is not enough
    some columns are left out.
    """
    columns = _columns(lines)
    sizes = {title: max(cell_len(cell) for cell in (title, *cells)) for title, cells in columns.items()}
    for title in SPARE:
        if width is not None and _total(sizes) > width:
            sizes.pop(title, None)
    used = _total(sizes) + 2 * len(GAP)
    folders = max(cell_len(text) for text in ("folder", *(line.folder for line in lines)))
    changed = min(MOST_CHANGED, max(cell_len(text) for text in ("changed", *(line.changed for line in lines))))
    fits = width is None or used + folders + min(changed, LEAST_CHANGED) <= width
    if width is not None:
        changed = min(changed, max(width - folders - (used if fits else 2 * len(GAP)), 0))
    told: list[Text] = [_head(sizes, changed if fits else None)]
    for position, line in enumerate(lines):
        text = _cells(sizes, {title: columns[title][position] for title in sizes}, line.state)
        clipped = clip(line.changed, changed)
        if fits:
            told.append(text.append(f"{GAP}{set_cell_size(clipped, changed)}{GAP}{line.folder}"))
        else:
            told += [text, Text(f"{GAP}{line.folder}{GAP}{clipped}".rstrip())]
        told += [Text(f"{GAP}{note}", style=style) for note, style in line.notes]
    return told


def _total(sizes: Mapping[str, int]) -> int:
    return sum(sizes.values()) + len(GAP) * (len(sizes) - 1)


def _monitored(group: Group) -> float | None:
    """The best value so far of one run; of a sweep the best that a finished run reached, or the mean over seeds."""
    if group.objective is None:
        return None
    name, direction = group.objective
    return group.metric(name) if group.over_seeds else objective_value(group.best, name, direction)


def _headline(run: RunRecord) -> str:
    """The test metric to show: what was monitored, the usual one, or the first."""
    monitor = run.monitor or ""
    wanted = (TEST_PREFIX + monitor.removeprefix("val/") if monitor.startswith("val/") else "", *USUAL_METRICS)
    first = [TEST_PREFIX + name for name in metric_columns(run.final)]
    return next((name for name in (*wanted, *first) if name in run.final), "")


def _of_sweep(group: Group) -> str:
    """``16 runs (2 failed): optimizer.lr, trainer.patience``."""
    assert group.sweep is not None
    number = f"{len(group.runs)}" if len(group.runs) == group.total else f"{len(group.runs)} of {group.total}"
    others = Counter(run.state for run in group.runs if run.state != FINISHED)
    states = f" ({', '.join(f'{count} {state}' for state, count in others.items())})" if others else ""
    if group.over_seeds:
        return f"mean of {number} seeds{states} {one_line(changed_words(group.best))}".strip()
    swept = ", ".join(short_names(group.sweep.swept))
    return f"{number} runs{states}" + (f": {swept}" if swept else "")


def _notes(group: Group, now: float, errors: bool) -> list[tuple[str, str]]:
    notes = [(_progress(run, now), "cyan") for run in group.runs if run.state == RUNNING and group.sweep is None]
    if errors:
        failed = [run for run in group.runs if run.state in (FAILED, KILLED) and run.error]
        lead = [f"{run.folder.name}: " if group.sweep else "" for run in failed]
        notes += [(start + one_line(str(run.error)), "red") for start, run in zip(lead, failed, strict=True)]
    return notes


def _progress(run: RunRecord, now: float) -> str:
    """``epoch 7 of 20, last written 2 min ago``."""
    epoch = max((int(row.get("epoch", 0)) for row in run.epochs), default=0)
    last = (run.config.get("trainer") or {}).get("max_epochs")
    place = f"epoch {epoch} of {last}" if last else f"epoch {epoch}"
    written = relative_time(last_write(run), now)
    return f"{place if epoch else 'no epoch yet'}, last written {written.replace('now', 'just now')}"


def _columns(lines: Sequence[Line]) -> dict[str, list[str]]:
    """Cells by title. A metric that all lines share is the title, otherwise it stands beside its number."""
    columns = {name: [getattr(line, name) for line in lines] for name in ("when", "state", "model", "data")}
    for kind, title in (("monitored", "best"), ("tested", "test")):
        found = [getattr(line, kind) for line in lines]
        names = {name for name, _ in found if name}
        shared = len(names) == 1
        columns[names.pop() if shared else title] = [
            number if shared or not name else f"{number} {name.removeprefix('val/').removeprefix(TEST_PREFIX)}"
            for name, number in found
        ]
    columns["time"] = [line.time for line in lines]
    if any(line.size for line in lines):
        columns["size"] = [line.size for line in lines]
    return columns


def _head(sizes: dict[str, int], changed: int | None) -> Text:
    titles = [_aligned(title, title, size) for title, size in sizes.items()]
    if changed is None:
        return Text(GAP.join(titles), style="bold")
    return Text(GAP.join([*titles, set_cell_size("changed", changed), "folder"]), style="bold")


def _cells(sizes: dict[str, int], cells: dict[str, str], state: str) -> Text:
    text = Text()
    for position, (title, size) in enumerate(sizes.items()):
        style = STYLES.get(state, "") if title == "state" else ""
        text.append(GAP if position else "").append(_aligned(title, cells[title], size), style=style)
    return text


def _aligned(title: str, cell: str, size: int) -> str:
    left = title in ("state", "model", "data")
    return set_cell_size(cell, size) if left else " " * (size - cell_len(cell)) + cell


def clip(text: str, size: int) -> str:
    return text if cell_len(text) <= size else set_cell_size(text, max(size - 1, 0)) + "…" * (size > 0)


def one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _names(names: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return ", ".join(distinct[:NAMES]) + (f" +{len(distinct) - NAMES}" if len(distinct) > NAMES else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
