"""The machine below torch: Python and packages, cores, memory, disks, locks and the clock."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from genrec.doctor.findings import Finding, Places, ok, one_line, problem, warning
from genrec.doctor.requirements import packages, requirements

_GB = 1e9
LITTLE_DISK, LOW_DISK = 1 * _GB, 5 * _GB
LITTLE_MEMORY, LOW_MEMORY = 0.7 * _GB, 2 * _GB  # torch and Lightning alone take half a gigabyte
FEW_FILES = 1000
AHEAD = 60.0  # seconds by which the clocks of a file server and of this machine may differ


def check_python(_: Places) -> Iterator[Finding]:
    """Python itself is of a version that genrec runs on."""
    from packaging.specifiers import SpecifierSet

    version, wanted = platform.python_version(), requirements().python
    found = f"{version} ({platform.system()} {platform.machine()})"
    if SpecifierSet(wanted).contains(version, prereleases=True):
        yield ok("Python", found)
    else:
        yield problem("Python", f"{found}; genrec needs {wanted}", "Build the environment with a newer one: make setup")


def check_packages(_: Places) -> Iterator[Finding]:
    """What genrec cannot do without is installed in a version that it is made for."""
    found = packages(requirements().core)
    for package in found:
        if not package.fits:
            what = f"{package.version} is installed" if package.version else "it is not installed"
            yield problem(
                package.name, f"{what}; needed: {package.requirement}", f"pip install '{package.requirement}'"
            )
    fitting = [f"{package.name} {package.version}" for package in found if package.fits]
    if fitting:
        yield ok("packages", ", ".join(fitting))


def check_threads(_: Places) -> Iterator[Finding]:
    """Not more threads than cores: they would wait for each other."""
    cores, allowed = usable_cores(), cpu_quota()
    given = os.environ.get("OMP_NUM_THREADS")
    found = f"{cores} cores" + (f", of which {allowed:g} may be used at a time" if allowed else "")
    remedy = f"export OMP_NUM_THREADS={max(1, int(min(cores, allowed or cores)))}"
    if given is not None and not (given.isdecimal() and int(given) > 0):
        yield warning("threads", f"OMP_NUM_THREADS={given} is no number of threads", f"Give one: {remedy}")
    elif given is not None and int(given) > min(cores, allowed or cores):
        yield warning("threads", f"{found}; OMP_NUM_THREADS={given}", f"Ask for no more than there are: {remedy}")
    elif given is None and allowed is not None and allowed < cores:
        yield warning("threads", f"{found}; torch starts a thread for each core", f"Say how many: {remedy}")
    else:
        yield ok("threads", found + (f"; OMP_NUM_THREADS={given}" if given else ""))


def check_memory(_: Places) -> Iterator[Finding]:
    """There is memory for a run."""
    free = available_memory()
    if free is None:
        yield ok("memory", "this system does not say what is free")
        return
    found, remedy = f"{_size(free)} free", "End other programs; ps aux --sort=-rss lists the largest first."
    if free < LITTLE_MEMORY:
        yield problem("memory", f"{found}; a run needs {_size(LITTLE_MEMORY)} before it has any data", remedy)
    elif free < LOW_MEMORY:
        yield warning("memory", f"{found}: enough for small runs only", remedy)
    else:
        yield ok("memory", found)


def check_folders(places: Places) -> Iterator[Finding]:
    """Runs and the cache can be written, on a disk with room whose locks hold."""
    yield from _folder("runs_dir", places.runs_dir)
    if places.cache_dir.absolute() != places.runs_dir.absolute():
        yield from _folder("cache_dir", places.cache_dir)


def check_clock(places: Places) -> Iterator[Finding]:
    """The clock is not behind what was written before: the newest run would be taken for an old one."""
    from genrec.records import run_files

    newest = max((path.stat().st_mtime for path in run_files(places.runs_dir)), default=0.0)
    ahead = newest - time.time()
    if ahead > AHEAD:
        found = f"the newest run was written {_span(ahead)} in the future: this clock has gone backwards"
        yield warning("clock", found, "Set it, or resume=auto may take the wrong run: timedatectl set-ntp true")
    else:
        yield ok("clock", time.strftime("%Y-%m-%d %H:%M:%S %Z") + ", later than every run")


def _folder(option: str, folder: Path) -> Iterator[Finding]:
    place = nearest_folder(folder)
    how = f"Choose another folder ({option}=...), or make it yours: chmod u+rwx {place}"
    if not place.is_dir():
        yield problem(option, f"{place} is a file where a folder should be", f"Name a folder: {option}=...")
        return
    told = str(folder) if folder.exists() else f"{folder} (not made yet)"
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor.") as written:
            written.write(b"x" * 4096)
            written.flush()
            os.fsync(written.fileno())
            failed = _lock_fault(Path(written.name))
    except OSError as error:
        yield problem(option, f"{told} cannot be written: {error.strerror or error}", how)
        return
    if failed:
        remedy = f"Choose a folder on a local disk: {option}=/local/folder"
        yield problem(option, f"locks do not hold on the disk of {told}: {failed}", remedy)
    else:
        yield ok(option, f"{told} can be written, and its locks hold")
    yield from _room(option, place)


def _room(option: str, place: Path) -> Iterator[Finding]:
    free, entries = shutil.disk_usage(place).free, os.statvfs(place)
    name, remedy = (
        f"disk of {option}",
        f"Make room (python -m genrec.report clean), or choose another disk: {option}=...",
    )
    if free < LITTLE_DISK:
        yield problem(name, f"{_size(free)} free", remedy)
    elif entries.f_files and entries.f_favail < FEW_FILES:
        yield problem(name, f"room for {entries.f_favail} more files only", remedy)
    elif free < LOW_DISK:
        yield warning(name, f"{_size(free)} free", remedy)
    else:
        yield ok(name, f"{_size(free)} free")


def _lock_fault(path: Path) -> str:
    """Why a lock does not keep others out; empty where it does."""
    with open(path) as first, open(path) as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return f"none can be taken ({one_line(error.strerror or error)})"
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        return "two can hold the same one"


def nearest_folder(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists; a file that is in the way."""
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    return place


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(group: Path = Path("/sys/fs/cgroup")) -> float | None:
    """How many cores a container may use at a time; None where there is no limit."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def available_memory(group: Path = Path("/sys/fs/cgroup"), system: Path = Path("/proc/meminfo")) -> float | None:
    """Bytes that a new program could take: what the machine has left, or its container; None where nobody says."""
    left = [free for free in (_machine_memory(system), _container_memory(group)) if free is not None]
    return min(left, default=None)


def _machine_memory(system: Path) -> float | None:
    try:
        lines = dict(line.split(":", 1) for line in system.read_text().splitlines() if ":" in line)
        return 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


def _container_memory(group: Path) -> float | None:
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(stat.get("inactive_file", 0))  # files that are kept in memory as long as nobody needs it
        return None if limit == "max" else float(int(limit) - int(used) + cached)
    except (OSError, ValueError):
        return None


def _size(size: float) -> str:
    from genrec.report.scales import format_bytes

    return format_bytes(size)


def _span(seconds: float) -> str:
    from genrec.report.scales import format_seconds

    return format_seconds(seconds)
