"""The runs there are: which can be continued, which failed, and folders that cannot be read."""

from __future__ import annotations

import shlex
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from genrec.contracts import GenrecError
from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning
from genrec.records import (
    FAILED,
    FINISHED,
    KILLED,
    PRUNED,
    RUNNING,
    RunRecord,
    read_run,
    read_sweep,
    run_files,
)
from genrec.report.cleaning import QUIET_SECONDS, folder_size, leftovers
from genrec.report.command_lines import resume_command
from genrec.report.lines import last_write
from genrec.report.scales import format_bytes
from genrec.report.selection import sweep_of

SHOWN = 3
STATES = (FINISHED, PRUNED, RUNNING, KILLED, FAILED)


def check_runs(places: Places) -> Iterator[Finding]:
    """Every run has finished, or goes on."""
    runs, broken = _read(places.runs_dir)
    for place, fault in broken.items():
        hidden = place.with_name(f".{place.name}")
        remedy = f"Put the folder out of sight, its checkpoints stay: mv {shlex.join([str(place), str(hidden)])}"
        yield problem(str(place), f"what the run wrote of itself cannot be read: {fault}", remedy)
    counts = Counter(run.state for run in runs)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    yield ok("runs", told or f"none below {places.runs_dir}")
    ended = sorted((run for run in runs if not _may_go_on(run)), key=lambda run: run.started, reverse=True)
    yield from _killed([run for run in ended if run.state == KILLED], places)
    yield from _failed([run for run in ended if run.state == FAILED], places)


def check_leftovers(places: Places) -> Iterator[Finding]:
    """No folder is left that was renamed to be removed."""
    found = leftovers(places.runs_dir)
    if found:
        size = format_bytes(sum(map(folder_size, found)))
        remedy = f"Finish it: python -m genrec.report clean{places.words('runs_dir')}"
        yield warning("interrupted clean", f"{len(found)} folders of removed runs are left, {size}", remedy)


def continue_command(run: RunRecord) -> str:
    """The line that goes on with a killed run."""
    words = [word for word in run.words if word.partition("=")[0].lstrip("+") != "resume"]
    return shlex.join(["python", "-m", "genrec.run", *words, f"resume={_short(run.folder)}"])


def _read(root: Path) -> tuple[list[RunRecord], dict[Path, str]]:
    """The runs below a folder, and why others cannot be read."""
    runs, broken = [], {}
    for path in run_files(root):
        try:
            run = read_run(path.parent)
            float(run.started)
            _ = run.words if run.state == KILLED else ()
            runs.append(run)
        except (GenrecError, OSError, TypeError, ValueError) as error:
            broken[path.parent] = one_line(str(error).removeprefix(f"{path} "))
    return runs, broken


def _may_go_on(run: RunRecord) -> bool:
    """Whether a run of another machine, whose lock is not seen from here, wrote a short while ago."""
    elsewhere = run.run.get("state") == RUNNING and run.run.get("host") not in (None, socket.gethostname())
    return elsewhere and time.time() - last_write(run) < QUIET_SECONDS


def _killed(runs: Sequence[RunRecord], places: Places) -> Iterator[Finding]:
    sweeps = dict.fromkeys(sweep for run in runs if (sweep := sweep_of(run)) is not None)
    lines = [(str(sweep), "a sweep", _sweep_command(sweep)) for sweep in sweeps]
    lines += [(str(run.folder), _reached(run), continue_command(run)) for run in runs if sweep_of(run) is None]
    for name, what, command in lines[:SHOWN]:
        list_it = f"python -m genrec.report ls{places.words('runs_dir')} sweep={shlex.quote(name)}"
        yield warning(name, f"{what} was killed", f"Continue: {command}" if command else f"See its runs: {list_it}")
    if len(lines) > SHOWN:
        listing = f"python -m genrec.report ls state=killed{places.words('runs_dir')}"
        yield warning("more killed runs", f"{len(lines) - SHOWN} others", f"List them: {listing}")


def _sweep_command(sweep: Path) -> str:
    """The line that goes on with a sweep; empty where its files do not tell."""
    try:
        return resume_command(read_sweep(sweep))
    except (GenrecError, OSError, TypeError, ValueError):
        return ""


def _reached(run: RunRecord) -> str:
    checkpoints = any((run.folder / "checkpoints").glob("*"))
    return f"{run.model} on {run.data}, {'with a' if checkpoints else 'before its first'} checkpoint,"


def _failed(runs: Sequence[RunRecord], places: Places) -> Iterator[Finding]:
    if not runs:
        return
    last = runs[0]
    found = f"{len(runs)} failed; the last, {last.folder}: {one_line(str(last.error or 'no reason is known'))}"
    words = places.words("runs_dir")
    remedy = f"See why: python -m genrec.report ls state=failed errors=true{words}; remove them: "
    yield warning("failed runs", found, f"{remedy}python -m genrec.report clean state=failed{words}")


def _short(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_absolute() and folder.is_relative_to(Path.cwd()) else folder
