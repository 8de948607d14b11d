"""``python -m genrec.report clean``: removes the folders of failed and killed runs after asking.

A folder goes in two steps. It is renamed to a hidden name beside it, at which moment the run is gone, and then emptied;
what an interrupted clean leaves is finished by the next. The lock of the run is held meanwhile, so that a run that goes
on, or is just being continued, is never touched.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from genrec.artifacts import is_locked, lock, read_json
from genrec.contracts import GenrecError
from genrec.records import FAILED, KILLED, LOCK_FILE, PRUNED, RUN_FILE, RUNNING, RunRecord
from genrec.remote.copies import when_fetched
from genrec.report.arguments import folder, take_options, truth
from genrec.report.lines import Group, last_write, line_of, render
from genrec.report.scales import format_bytes
from genrec.report.selection import Selection, check_keys, parse_selection, runs_below, select, sweep_of, why_nothing

VALUED, FLAGS = ("runs_dir", "cache_dir"), ("dry_run", "yes", "cache")
REMOVABLE = (FAILED, KILLED, PRUNED)
DEFAULT_STATES = (FAILED, KILLED)
DELETED = re.compile(r"\..+\.deleted-[0-9a-f]{8}")
QUIET_SECONDS = 3600.0  # a run of another machine that has written since may go on: its lock is not seen everywhere


@dataclass(frozen=True)
class Request:
    """The command line of ``clean``, checked."""

    selection: Selection
    dry_run: bool = False
    yes: bool = False
    cache: bool = False
    runs_dir: Path = Path("outputs")
    cache_dir: Path = Path("outputs/cache")


@dataclass(frozen=True)
class Removal:
    """What was removed: how many, the bytes that are free now, and what was spared, with the reason."""

    count: int
    freed: int
    spared: tuple[tuple[Path, str], ...] = ()


def clean_command(arguments: Sequence[str], console: Console | None = None, answers: TextIO | None = None) -> None:
    """Lists, asks and removes; ``answers`` is where a person types, by default standard input. ``GenrecError`` for a
    mistake in the words."""
    request = parse(arguments)
    console = console or Console()
    clean = _clean_cache if request.cache else _clean_runs
    clean(request, console, sys.stdin if answers is None else answers)


def parse(arguments: Sequence[str]) -> Request:
    """The command line as a ``Request``; every fault is a GenrecError that says what is allowed."""
    options, words = take_options(arguments, VALUED, FLAGS, {"-y": "yes", "-n": "dry_run"})
    runs_dir = folder(options, "runs_dir", "outputs")
    selection = parse_selection(words, runs_dir=runs_dir)
    for state in selection.states:
        if state not in REMOVABLE:
            raise GenrecError(f"state={state}: clean removes {', '.join(REMOVABLE)} runs only. Remove others by hand.")
    cache = truth(options, "cache")
    if cache and words:
        raise GenrecError(f"cache=true takes no filters, but {words[0]!r} is one. Leave it out.")
    if not selection.states:
        selection = Selection(**{**vars(selection), "states": DEFAULT_STATES})
    return Request(
        selection=selection,
        dry_run=truth(options, "dry_run"),
        yes=truth(options, "yes"),
        cache=cache,
        runs_dir=runs_dir,
        cache_dir=folder(options, "cache_dir", str(runs_dir / "cache")),
    )


def why_spared(run: RunRecord, runs_dir: Path) -> str | None:
    """The reason why the folder of a run must stay; None if it may go."""
    place, root = run.folder, runs_dir.resolve()
    if run.state not in REMOVABLE:
        return f"it is {run.state}"
    if place.is_symlink() or place.resolve() != root / place.relative_to(runs_dir):
        return "it is reached through a link"
    if place.resolve() == root:
        return "it is the folder of all runs"
    if any(RUN_FILE in names for top, _, names in os.walk(place) if Path(top) != place):
        return "it holds other runs"
    if (place / "cache").is_dir():
        return "it holds a cache, which other runs may share"
    if (sweep := sweep_of(run)) is not None and is_locked(sweep / LOCK_FILE):
        return "its sweep is running"
    host = run.run.get("host")
    elsewhere = run.run.get("state") == RUNNING and host not in (None, socket.gethostname())
    if elsewhere and time.time() - last_write(run) < QUIET_SECONDS:
        return f"it may still run on {host}: it wrote within the hour"
    return None


def remove_runs(runs: Sequence[RunRecord], runs_dir: Path) -> Removal:
    """Removes the folders of ``runs`` that may go. What cannot be removed is spared and told."""
    count, freed, spared = 0, 0, []
    for run in runs:
        reason = why_spared(run, runs_dir)
        if reason is None:
            try:
                with _ours(run):
                    freed += _remove(run.folder)
            except (GenrecError, OSError) as error:
                reason = str(error)
        if reason is not None:
            spared.append((run.folder, reason))
            continue
        count += 1
        _remove_empty_parents(run.folder.parent, runs_dir)
    return Removal(count, freed, tuple(spared))


def remove_leftovers(runs_dir: Path) -> Removal:
    """Finishes what interrupted cleans have renamed and not emptied; a clean that goes on elsewhere holds the lock."""
    count, freed, spared = 0, 0, []
    for place in leftovers(runs_dir):
        if is_locked(place / LOCK_FILE):
            continue
        try:
            size = folder_size(place)
            _delete(place)
        except OSError as error:
            spared.append((place, str(error)))
            continue
        count, freed = count + 1, freed + size
        _remove_empty_parents(place.parent, runs_dir)
    return Removal(count, freed, tuple(spared))


def leftovers(runs_dir: Path) -> list[Path]:
    """Folders that were renamed to go."""
    found = []
    for top, names, _ in os.walk(runs_dir):
        doomed = [name for name in names if DELETED.fullmatch(name)]
        found += [Path(top, name) for name in doomed if not Path(top, name).is_symlink()]
        names[:] = [name for name in names if not name.startswith(".")]
    return found


def folder_size(place: Path) -> int:
    """Bytes of the files below a folder; links are not followed, a file with two names counts once."""
    sizes = {}
    for top, _, names in os.walk(place):
        for name in names:
            try:
                status = os.lstat(os.path.join(top, name))
            except FileNotFoundError:
                continue
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def torn_entries(cache_dir: Path) -> list[Path]:
    """Entries of the cache that hold something, have not been finished, and that no run is working at."""
    return [
        lock.parent
        for lock in sorted(cache_dir.glob("*/*/lock"))
        if not (lock.parent / "done").exists() and not is_locked(lock) and len(list(lock.parent.iterdir())) > 1
    ]


def superseded_copies(cache_dir: Path) -> list[Path]:
    """Entries of remote files and folders of which a newer version has been fetched, and that no run is making."""
    versions: dict[str, list[Path]] = {}
    finished = [mark.parent for mark in (cache_dir / "remote").glob("*-*/done")]
    for entry in sorted(finished, key=when_fetched):
        versions.setdefault(entry.name.partition("-")[0], []).append(entry)
    return sorted(entry for entries in versions.values() for entry in entries[:-1] if not is_locked(entry / "lock"))


def empty_entries(entries: Sequence[Path], finished: Sequence[Path] = ()) -> Removal:
    """Empties torn entries, and ``finished`` ones. Their lock files stay: a run may be waiting at one."""
    count, freed = 0, 0
    for entry in [*entries, *finished]:
        with open(entry / "lock", "r+") as handle:
            if not lock(handle) or (entry not in finished and (entry / "done").exists()):
                continue
            (entry / "done").unlink(missing_ok=True)  # first: what follows may be interrupted
            freed += folder_size(entry)
            for path in entry.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != "lock":
                    path.unlink()
            count += 1
    return Removal(count, freed)


def _clean_runs(request: Request, console: Console, answers: TextIO) -> None:
    runs = runs_below(request.runs_dir)
    check_keys(runs, (condition.key for condition in request.selection.conditions), options=(*VALUED, *FLAGS, "state"))
    chosen = select(runs, request.selection)
    spared = [(run.folder, reason) for run in chosen if (reason := why_spared(run, request.runs_dir)) is not None]
    kept = {place for place, _ in spared}
    doomed = [run for run in chosen if run.folder not in kept]
    if not request.dry_run:
        _tell(console, remove_leftovers(request.runs_dir), "left by an interrupted clean ")
    _tell(console, Removal(0, 0, tuple(spared)))
    if not doomed:
        nothing = "" if chosen else why_nothing(runs, request.selection, request.runs_dir) + " "
        _say(console, f"{nothing}Nothing to remove.")
        return
    sizes = [folder_size(run.folder) for run in doomed]
    _list_runs(doomed, sizes, console)
    what = f"{_number(len(doomed), 'run')}, {format_bytes(sum(sizes))}"
    resumable = any(run.state == KILLED for run in doomed)
    note = "A killed run could still be continued, by its command with resume=auto." if resumable else ""
    if _agreed(request, what, note, console, answers):
        _tell(console, remove_runs(doomed, request.runs_dir), always=True)


def _clean_cache(request: Request, console: Console, answers: TextIO) -> None:
    torn, old = torn_entries(request.cache_dir), superseded_copies(request.cache_dir)
    entries = [*torn, *old]
    if not entries:
        _say(console, f"Nothing to remove: no unfinished entries and no old copies below {request.cache_dir}/.")
        return
    sizes = [folder_size(entry) for entry in entries]
    for entry, size in zip(entries, sizes, strict=True):
        _say(console, f"{format_bytes(size):>9}  {entry}")
    what = f"{_number(len(entries), 'entry', 'entries')}, {format_bytes(sum(sizes))}"
    note = "A tokenizer that was killed would go on from there." if torn else ""
    note = f"{note} Old copies of remote files are among them." if old else note
    if _agreed(request, what, note.strip(), console, answers):
        removal = empty_entries(torn, old)
        _say(console, f"{_number(removal.count, 'entry', 'entries')} emptied, {format_bytes(removal.freed)} free.")


def _list_runs(runs: Sequence[RunRecord], sizes: Sequence[int], console: Console) -> None:
    """The table of ``ls`` with sizes."""
    now = time.time()
    lines = [line_of(Group(run.folder, (run,)), "when", now, errors=True) for run in runs]
    sized = [line.with_size(format_bytes(size)) for line, size in zip(lines, sizes, strict=True)]
    for text in render(sized, console.width if console.is_terminal else None):
        console.print(text, soft_wrap=True)


def _agreed(request: Request, what: str, note: str, console: Console, answers: TextIO) -> bool:
    if request.dry_run:
        _say(console, f"{what} would go. Nothing was removed: dry_run=true.")
        return False
    if request.yes:
        return True
    if not answers.isatty():
        raise GenrecError(f"{what}: there is no terminal to ask at. Add yes=true to remove, dry_run=true to look only.")
    console.print(Text(f"{note}\n" if note else "").append(f"Remove {what}? [y/N] "), end="", soft_wrap=True)
    console.file.flush()
    if answers.readline().strip().lower() in ("y", "yes"):
        return True
    _say(console, "Nothing was removed.")
    return False


@contextmanager
def _ours(run: RunRecord) -> Iterator[None]:
    """Holds the lock of a run that is as it was when it was listed; ``GenrecError`` says why not."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    handle = os.open(run.folder / LOCK_FILE, flags, 0o644)
    try:
        if not lock(handle):
            raise GenrecError("it is running")
        now = read_json(run.folder / RUN_FILE, dict)
        if now != run.run:
            raise GenrecError("it has changed meanwhile")
        yield
    finally:
        os.close(handle)


def _remove(place: Path) -> int:
    """Removes a folder and returns its bytes. ``run.json`` is the first to go: no run is seen in what may be left."""
    size = folder_size(place)
    hidden = place.with_name(f".{place.name}.deleted-{secrets.token_hex(4)}")
    place.rename(hidden)
    (hidden / RUN_FILE).unlink(missing_ok=True)
    _delete(hidden)
    return size


def _delete(place: Path) -> None:
    while place.exists():
        try:
            shutil.rmtree(place)
        except FileNotFoundError:  # another clean is at the same folder
            continue


def _remove_empty_parents(place: Path, runs_dir: Path) -> None:
    while place != runs_dir and place.is_relative_to(runs_dir):
        try:
            place.rmdir()
        except OSError:  # not empty, or gone
            return
        place = place.parent


def _tell(console: Console, removal: Removal, what: str = "", always: bool = False) -> None:
    for place, reason in removal.spared:
        _say(console, f"{place} stays: {reason}")
    if removal.count or always:
        _say(console, f"{_number(removal.count, 'run')} {what}removed, {format_bytes(removal.freed)} free.")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
