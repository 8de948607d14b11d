"""Files of remote stores as files of this machine: fetched once per version, whole or not at all, shared by all runs.

A copy lies in ``<cache_dir>/remote/<address>-<version>/files/``, where the address counts without what signs it and the
version is what the store says of it (generation, ETag, or time of the last change, with the size).
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import Progress

from genrec.artifacts import Cache, atomic_path, fingerprint, read_json, sampled_digest, write_json
from genrec.remote.addresses import LOCAL, before_pattern, identity, is_remote, name_of, protocol_of, shown
from genrec.remote.parallel import in_parallel
from genrec.remote.progress import one_of, progress_bars
from genrec.remote.stores import (
    AT_ONCE,
    BROKEN,
    CHANGED,
    PASSING,
    STOPPED,
    WHOLE_ONLY,
    RemoteFile,
    StoreError,
    remote_file,
    remote_files,
    told,
)

logger = logging.getLogger("genrec.data")

STAGE, FILES, ORIGIN_FILE = "remote", "files", "origin.json"
DEFAULT_CACHE = "outputs/cache"
_CHUNK = 1 << 20
_ATTEMPTS, _FIRST_PAUSE, _LONGEST_PAUSE = 4, 0.5, 8.0  # seconds
_ASKING = 4.0  # seconds after which a store that has told nothing yet is not asked again
_UNMARKED = "unmarked"  # version of what a store tells nothing of; it is fetched every time

Options = Mapping[str, Any] | None


def localised(
    path: str | Path, cache_dir: str | Path = DEFAULT_CACHE, options: Options = None, *, progress: bool = True
) -> Path:
    """A file as one of this machine: itself, or the copy of a remote one, fetched unless this version is here already.

    ``options`` are the storage_options of the file system. Where the store cannot be reached, the newest copy is taken
    with a warning; without one, or for any other reason, it is a StoreError of one sentence.
    """
    place = on_this_machine(path)
    if place is not None:
        return place
    url = str(path)
    try:
        found = persistently(lambda: remote_file(url, options), url, within=_ASKING)
    except StoreError as error:
        return _newest_copy(url, cache_dir, error)
    return fetched(found, cache_dir, progress=progress)


def localised_folder(
    url: str,
    cache_dir: str | Path,
    options: Options,
    choose: Callable[[list[str]], Iterable[str]],
    *,
    progress: bool = True,
) -> Path:
    """A remote folder as one of this machine that holds the files whose names ``choose`` takes of all names there."""
    place = on_this_machine(url)
    if place is not None:
        return place
    try:
        found = listed(url, options)
    except StoreError as error:
        return _newest_copy(url, cache_dir, error)
    return _as_folder(found, url, cache_dir, choose, progress=progress)


def localised_files(
    url: str,
    cache_dir: str | Path,
    options: Options,
    choose: Callable[[list[str]], Iterable[str]],
    *,
    progress: bool = True,
) -> list[Path]:
    """The remote file at an address, or those of a folder or a pattern that ``choose`` takes by their names, as files
    of this machine, by name."""
    try:
        found = listed(url, options)
    except StoreError as error:
        copy = _newest_copy(url, cache_dir, error)
        return sorted(copy.iterdir()) if copy.is_dir() else [copy]
    if [file.url for file in found] == [url]:
        return fetched_together(found, cache_dir, progress=progress)
    return sorted(_as_folder(found, url, cache_dir, choose, progress=progress).iterdir())


def _as_folder(
    found: list[RemoteFile],
    url: str,
    cache_dir: str | Path,
    choose: Callable[[list[str]], Iterable[str]],
    *,
    progress: bool,
) -> Path:
    """The chosen of some files in one folder. Those of a pattern may lie in several: where two have one name, all have
    their number before it."""
    there = {name_of(file.url): file for file in found}
    if len(there) < len(found):
        there = {f"{place:05d}-{name_of(file.url)}": file for place, file in enumerate(found)}
    chosen = {name: there[name] for name in choose(sorted(there))}
    copies = dict(zip(chosen, fetched_together(list(chosen.values()), cache_dir, progress=progress), strict=True))
    unmarked = any(not file.version for file in chosen.values())
    version = fingerprint("folder", [[copy.parent.parent.name, name] for name, copy in copies.items()])
    with Cache(Path(cache_dir)).entry(STAGE, f"{_address_key(url)}-{version}") as (entry, ready):
        folder = entry / FILES / _local_name(url)
        if not ready or unmarked or any(not (folder / name).exists() for name in copies):
            for name, copy in copies.items():
                _link(copy, folder / name)
            hashes = {name: noted_sha256(copy) for name, copy in copies.items()}
            _note_origin(entry, url, files=hashes)
    return folder


def version_of(path: Path) -> list[Any]:
    """What tells a file of this machine from another of its name without reading all of it: its size, and the hash that
    was noted of a copy, or else its time and pieces of its content."""
    stat, noted = path.stat(), noted_sha256(path)
    known = [noted] if noted else [stat.st_mtime_ns, sampled_digest(path, piece=1 << 16, pieces=16)]
    return [path.name, stat.st_size, *known]


def noted_sha256(path: Path) -> str | None:
    """The SHA-256 of a copy, as it was noted when the file was fetched; None of any other file."""
    for place in (path.parent, path.parent.parent):
        origin = place.parent / ORIGIN_FILE
        if place.name == FILES and origin.exists():
            noted: Any = read_json(origin)
            files = noted.get("files")
            found = noted.get("sha256") if place == path.parent else isinstance(files, dict) and files.get(path.name)
            return found or None
    return None


def on_this_machine(path: str | Path) -> Path | None:
    """The path of a file of this machine, which ``file://`` may stand before; None for others."""
    if not is_remote(path):
        return Path(path)
    return Path(str(path).partition("://")[2]) if protocol_of(str(path)) in LOCAL else None


def listed(url: str, options: Options) -> list[RemoteFile]:
    return persistently(lambda: remote_files(url, options), url, within=_ASKING)


def _link(copy: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as unfinished:
        unfinished.unlink()
        try:
            os.link(copy, unfinished)
        except OSError:
            shutil.copy2(copy, unfinished)


def fetched(file: RemoteFile, cache_dir: str | Path = DEFAULT_CACHE, *, progress: bool = True) -> Path:
    """The copy of this version of a remote file; what a broken fetch has left is continued, a size or MD5 that is not
    as the store says is a StoreError."""
    return fetched_together([file], cache_dir, progress=progress)[0]


def fetched_together(files: list[RemoteFile], cache_dir: str | Path, *, progress: bool = True) -> list[Path]:
    """The copies of several files in their order, some fetched at a time; the first error ends all, and what has
    arrived is kept for the next time."""
    stop = threading.Event()
    with progress_bars(progress) as bars:
        fetches = [partial(_fetched, file, cache_dir, bars, stop) for file in files]
        return in_parallel(fetches, stop, at_once=AT_ONCE)


def _fetched(file: RemoteFile, cache_dir: str | Path, bars: Progress, stop: threading.Event) -> Path:
    key = f"{_address_key(file.url)}-{file.version or _UNMARKED}"
    with Cache(Path(cache_dir)).entry(STAGE, key) as (entry, ready):
        path = entry / FILES / name_of(file.url)
        if ready and file.version and path.is_file() and file.size in (None, path.stat().st_size):
            logger.info("%s: the copy in %s is of this version", shown(file.url), path.parent)
            return path
        path.parent.mkdir(exist_ok=True)
        part = entry / "part"
        if not file.version:
            part.unlink(missing_ok=True)
        begin = time.perf_counter()
        persistently(lambda: _fetch(file, part, bars, stop), file.url)
        sha256 = _verified(file, part)
        os.replace(part, path)
        _note_origin(entry, file.url, bytes=path.stat().st_size, sha256=sha256)
        seconds = time.perf_counter() - begin
    logger.info("fetched %s: %d bytes in %.1f s (%s)", shown(file.url), path.stat().st_size, seconds, path)
    return path


def _fetch(file: RemoteFile, part: Path, bars: Progress, stop: threading.Event) -> None:
    """One try: reads on from where the last one ended, where the store can do that, else from the beginning."""
    held = part.stat().st_size if part.exists() else 0
    if file.size is not None and held >= file.size:
        if held == file.size:
            return
        held = 0
    with one_of(bars, name_of(file.url), file.size, held) as advance:
        try:
            _copy(file, part, held, advance, stop)
        except StoreError as error:
            if error.kind != WHOLE_ONLY:
                raise
            advance(-held)
            _copy(file, part, 0, advance, stop, block_size=0)
    if file.size is not None and part.stat().st_size < file.size:
        came = f"{part.stat().st_size:,} of {file.size:,} bytes came"
        raise StoreError(f"{shown(file.url)} ended early: {came}. Try again: what has arrived is kept.", BROKEN)


def _copy(
    file: RemoteFile, part: Path, begin: int, advance: Callable[[int], None], stop: threading.Event, **how: Any
) -> None:
    """Writes to ``part`` what comes from byte ``begin`` on; only what the store does is told as its failure."""
    with file.open(**how) as source, open(part, "r+b" if begin else "wb") as target:
        target.seek(begin)
        target.truncate()
        if begin:
            with told(file.url, file.options):
                source.seek(begin)
        while True:
            if stop.is_set():
                raise StoreError(f"{shown(file.url)} was not fetched any more, since another file failed.", STOPPED)
            with told(file.url, file.options):
                chunk = source.read(_CHUNK)
            if not chunk:
                break
            target.write(chunk)
            advance(len(chunk))
        target.flush()
        os.fsync(target.fileno())


def _verified(file: RemoteFile, part: Path) -> str:
    """The SHA-256 of what was fetched. What is not as the store says is removed, with the reason."""
    with open(part, "rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        md5 = None if file.md5 is None else hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    size, wrong = part.stat().st_size, ""
    if file.size is not None and size != file.size:
        wrong = f"{size:,} bytes came, and the store says {file.size:,}"
    elif md5 is not None and md5.digest() != file.md5:
        wrong = "its MD5 is not what the store says"
    elif file.version and persistently(lambda: remote_file(file.url, file.options), file.url).version != file.version:
        wrong = "it was changed while it was fetched"
    if wrong:
        part.unlink()
        raise StoreError(f"{shown(file.url)}: {wrong}. It was not kept; run again.", CHANGED)
    return sha256


def persistently(action: Callable[[], Any], url: str, *, within: float = math.inf) -> Any:
    """What ``action`` gives, tried again after a pause where what failed may pass; each next pause is twice as long.
    No try begins later than ``within`` seconds after the first."""
    wait, begin = _FIRST_PAUSE, time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except StoreError as error:
            late = time.monotonic() + wait - begin > within
            if error.kind not in PASSING or attempt == _ATTEMPTS or late:
                raise
            logger.warning("%s: %s; trying again (%d of %d)", shown(url), error.kind, attempt + 1, _ATTEMPTS)
            time.sleep(min(wait, _LONGEST_PAUSE))
            wait *= 2


def cached_copy(url: str, cache_dir: str | Path) -> Path | None:
    """The newest copy of a remote file or folder, the store not being asked; None where there is none."""
    copies = copies_of(url, cache_dir)
    return copies[-1] / FILES / _local_name(url) if copies else None


def copies_of(url: str, cache_dir: str | Path) -> list[Path]:
    """The finished entries of an address, the oldest first."""
    entries = Path(cache_dir, STAGE).glob(f"{_address_key(url)}-*")
    finished = [entry for entry in entries if (entry / "done").exists() and (entry / FILES / _local_name(url)).exists()]
    return sorted(finished, key=when_fetched)


def when_fetched(entry: Path) -> tuple[int, int]:
    """Orders finished entries, the oldest first. Files may be of one time by the clock of their disk, so the time is
    noted; entries without a note come first."""
    origin = entry / ORIGIN_FILE
    if not origin.exists():
        return 0, (entry / "done").stat().st_mtime_ns
    noted: Any = read_json(origin)
    return noted.get("fetched", 0), origin.stat().st_mtime_ns


def _note_origin(entry: Path, url: str, **found: Any) -> None:
    write_json(entry / ORIGIN_FILE, {"address": shown(url), "fetched": time.time_ns(), **found})


def _newest_copy(url: str, cache_dir: str | Path, error: StoreError) -> Path:
    copy = cached_copy(url, cache_dir) if error.kind in PASSING else None
    if copy is None:
        raise error
    logger.warning("%s Going on with the copy that was fetched last: %s", error, copy)
    return copy


def _local_name(url: str) -> str:
    """What the copy is called: as the file or folder, and what a pattern finds as the folder that it begins with."""
    return name_of(before_pattern(url))


def _address_key(url: str) -> str:
    return fingerprint(identity(url).rstrip("/"))
