"""A fuzz run: ``python -m tests.fuzz.command --cases 20000 --seed 1`` tries cases of every area and prints a table.

Each area runs in a process of its own, so that one that dies or hangs is a defect of the case it was at. What is found
is left in ``--output``: a folder for every defect with what was tried, what a user would have seen, and the files.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tests.fuzz.cases import CUT, DEFECT, REFUSED, THROUGH, Area, tried

_MEMORY = 12 * 2**30  # of addresses, of which torch takes some without using them
_GRACE = 240.0  # seconds that a process may be silent beyond what its cases may take
_HEAD = ("area", "cases", "refused", "through", "cut off", "defects")


def areas() -> dict[str, Area]:
    """Everything that is tried, by name."""
    from tests.fuzz import files, folders, overrides, processes, sweeps, training

    modules = (overrides, sweeps, training, processes, files, folders)
    return {area.name: area for module in modules for area in module.AREAS}


@dataclass
class Found:
    """What came of an area: how many cases ended how, and the folders of its defects."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: list[Path] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return sum(self.counts.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Console entry; 1 where anything was found."""
    args = arguments().parse_args(argv)
    if args.child:
        return child(areas()[args.child], args.seed, args.first, args.first + args.cases)
    known = areas()
    unknown = [name for name in args.areas if name not in known]
    if unknown:
        sys.stderr.write(f"no such area: {', '.join(unknown)}. Known: {', '.join(known)}.\n")
        return 2
    begun = time.monotonic()
    found: dict[str, Found] = {}
    for name in args.areas or known:
        count = max(1, round(args.cases * known[name].share)) if args.number is None else 1
        first = args.first if args.number is None else args.number
        found[name] = run_area(known[name], args.seed, first, count, Path(args.output))
        sys.stdout.write(f"{row(name, found[name])}\n")
        sys.stdout.flush()
    sys.stdout.write("\n" + "\n".join(table(found)) + "\n")
    sys.stdout.write(f"\nseed {args.seed}, {time.monotonic() - begun:.0f} s\n")
    defects = [path for item in found.values() for path in item.defects]
    for path in defects:
        sys.stdout.write(f"defect: {path}\n")
    return 1 if defects else 0


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.command", description="Tries nonsense in every place.")
    parser.add_argument("areas", nargs="*", help="areas to try; without any all of them")
    parser.add_argument("--cases", type=int, default=2000, help="how many of an area, times its share")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--number", type=int, help="only the case of this number")
    parser.add_argument("--output", default="outputs/fuzz", help="where defects are left")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def table(found: dict[str, Found]) -> list[str]:
    """The counts of all areas, and of all together."""
    whole = Found()
    for item in found.values():
        whole.counts += item.counts
    return ["".join(f"{word:<14}" if i == 0 else f"{word:>9}" for i, word in enumerate(_HEAD)),
            *(row(name, item) for name, item in found.items()), row("all", whole)]  # fmt: skip


def row(name: str, found: Found) -> str:
    """One line of the table."""
    kinds = (found.counts[kind] for kind in (REFUSED, THROUGH, CUT, DEFECT))
    return f"{name:<14}{found.cases:>9,}" + "".join(f"{count:>9,}" for count in kinds)


# ---- a process of its own for each area -----------------------------------------------------------------------------


def run_area(area: Area, seed: int, first: int, count: int, output: Path) -> Found:
    """Tries cases ``first`` to ``first + count - 1`` of an area in processes that may die."""
    found = Found()
    number, end = first, first + count
    while number < end:
        for report in _reports(area, seed, number, end - number):
            number = report["number"] + 1
            found.counts[report["kind"]] += 1
            if report["kind"] == DEFECT:
                found.defects.append(_keep(area, seed, report, output))
    return found


def _reports(area: Area, seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """What a process says of its cases; where it dies, a defect of the case that it was at."""
    words = [sys.executable, "-m", "tests.fuzz.command", "--child", area.name]
    words += ["--seed", str(seed), "--first", str(first), "--cases", str(count)]
    noise = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed below; a pipe would fill up)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=noise, text=True, errors="replace")
    number = first
    try:
        for line in _lines(process, area.seconds + _GRACE):
            report = json.loads(line)
            number = report["number"] + 1
            yield report
        if number < first + count:
            noise.seek(0)
            why = f"the process ended with {process.poll()}\n{noise.read()[-3000:]}"
            yield {"number": number, "kind": DEFECT, "text": "", "said": why, "folder": None}
    finally:
        process.kill()
        process.wait()
        noise.close()


def _lines(process: subprocess.Popen[str], seconds: float) -> Iterator[str]:
    """The lines of a process until it ends, or is silent for too long; then it is killed."""
    lines: Queue[str] = Queue()
    threading.Thread(target=_read, args=(process, lines), daemon=True).start()
    try:
        while line := lines.get(timeout=seconds):
            if line.startswith("{"):
                yield line
    except Empty:
        process.kill()
    process.wait()


def _read(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put("")


def _keep(area: Area, seed: int, report: dict[str, Any], output: Path) -> Path:
    """The folder of a defect: what was tried, what came of it, and the files of the case."""
    folder = output / f"{area.name}-{seed}-{report['number']}"
    folder.mkdir(parents=True, exist_ok=True)
    again = f"python -m tests.fuzz.command {area.name} --seed {seed} --number {report['number']}"
    (folder / "case.txt").write_text(f"{report['text']}\n\n{report['said']}\n\nAgain: {again}\n", encoding="utf-8")
    if report["folder"] is not None:
        shutil.copytree(report["folder"], folder / "files", dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(report["folder"], ignore_errors=True)
    return folder


def child(area: Area, seed: int, first: int, end: int) -> int:
    """Tries cases and writes a line of JSON on each."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what cases print themselves
    logging.disable(logging.CRITICAL)
    for number in range(first, end):
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        case, came = tried(area, seed, number, folder)
        keep = came.kind == DEFECT
        report = {"number": number, "kind": came.kind, "text": case.text, "said": came.said}
        out.write(json.dumps({**report, "folder": str(folder) if keep else None}) + "\n")
        out.flush()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
