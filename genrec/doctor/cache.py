"""The cache of upstream stages: entries that are whole, torn, held by a run, or damaged after they were finished."""

from __future__ import annotations

import re
import shlex
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from genrec.artifacts import entry_damage, is_locked, read_json
from genrec.contracts import GenrecError
from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning
from genrec.report.cleaning import folder_size, superseded_copies, torn_entries
from genrec.report.scales import format_bytes

FILES = {
    "encoder": ("vectors.npy",),
    "tokenizer": ("semantic_ids.npz", "report.json"),
    "rows": ("features.json", "parts.npy", "summary.json"),
}  # of a finished entry, by its stage
UNFINISHED = re.compile(r"\..+\.[a-z0-9_]{8}(\.\w+)?")  # as genrec.artifacts.atomic_path names what it is writing
STALE_SECONDS = 3600.0
SHOWN = 5


def check_entries(places: Places) -> Iterator[Finding]:
    """Every entry is whole, or a run is at it."""
    cache = places.cache_dir
    entries = sorted(lock.parent for lock in cache.glob("*/*/lock"))
    done = [entry for entry in entries if (entry / "done").exists()]
    held = [entry for entry in entries if is_locked(entry / "lock")]
    damaged = {entry: fault for entry in done if entry not in held and (fault := entry_fault(entry))}
    for entry, fault in damaged.items():
        remedy = f"It is made again once it is gone: rm -r {shlex.quote(str(entry))}"
        yield problem(f"{entry.parent.name} {entry.name}", f"finished, but {fault}", remedy)
    torn = torn_entries(cache)
    if torn:
        found = f"{_entries(torn)} begun and not finished, {format_bytes(sum(map(folder_size, torn)))}"
        remedy = "The next run that needs one goes on with it; or empty them: python -m genrec.report clean cache=true"
        yield warning("torn entries", found, remedy + _cache_words(places))
    old = superseded_copies(cache)
    if old:
        found = f"{_entries(old)} of remote files that have changed since, {format_bytes(sum(map(folder_size, old)))}"
        yield ok("old copies", found, "Remove them: python -m genrec.report clean cache=true" + _cache_words(places))
    if held:
        yield ok("entries in use", f"{_entries(held)} that runs are making or reading now")
    whole = [entry for entry in done if entry not in damaged]
    if whole or not (torn or held or damaged):
        size = format_bytes(sum(map(folder_size, whole)))
        yield ok("finished entries", f"{_entries(whole)} whole, {size}" if whole else f"none in {cache}")


def check_temporary_files(places: Places) -> Iterator[Finding]:
    """Nothing half written is left of processes that were killed."""
    stale = stale_files(places)
    if not stale:
        yield ok("temporary files", "none left behind")
        return
    found = f"{len(stale)} left behind by processes that were killed, {format_bytes(sum(map(_size, stale)))}"
    more = ", and look again for the others" if len(stale) > SHOWN else ""
    yield warning("temporary files", found, f"Remove them{more}: rm -f {shlex.join(map(str, stale[:SHOWN]))}")


def stale_files(places: Places) -> list[Path]:
    """Unfinished files of an hour ago and older in the folders of runs and cache."""
    now = time.time()
    roots = dict.fromkeys((places.runs_dir.absolute(), places.cache_dir.absolute()))
    hidden = {path for root in roots for path in root.glob("**/.*") if UNFINISHED.fullmatch(path.name)}
    return sorted(path for path in hidden if path.is_file() and now - path.stat().st_mtime > STALE_SECONDS)


def entry_fault(entry: Path) -> str:
    """What is wrong with the files of a finished entry; empty where nothing is."""
    for name in FILES.get(entry.parent.name, ()):
        path = entry / name
        if not path.is_file():
            return f"{name} is missing"
        fault = _file_fault(path)
        if fault:
            return f"{name} is damaged ({fault})"
    mark = entry / "done"
    tells = mark.is_file() and mark.read_text(encoding="utf-8", errors="replace").startswith("{")
    return entry_damage(entry) if tells else ""


def _file_fault(path: Path) -> str:
    import numpy as np

    try:
        if path.suffix == ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            return f"{broken} in it has another checksum" if broken else ""
        else:
            read_json(path)
    except (OSError, ValueError, EOFError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        return "not valid JSON" if isinstance(error, GenrecError) else one_line(error)
    return ""


def _size(path: Path) -> int:
    return path.stat().st_size


def _entries(entries: Sequence[Path]) -> str:
    return f"{len(entries)} {'entry' if len(entries) == 1 else 'entries'}"


def _cache_words(places: Places) -> str:
    """``clean`` looks below ``runs_dir`` as the doctor does."""
    return places.words("runs_dir", "cache_dir")
