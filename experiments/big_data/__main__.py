"""Runs the same command on logs of growing size, from disk and from memory, and writes what each took."""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from experiments.big_data.invent import invent
from experiments.growth import Line, Panel, draw, seconds
from genrec.report.scales import format_bytes, format_seconds

HERE = Path(__file__).parent
RESULTS, PLOT, README = "results.csv", "plot.svg", "README.md"
FIRST, AGAIN, MEMORY = "from disk, first time", "from disk, prepared", "read into memory"
USERS, ITEMS = 10, 50  # interactions per user, per item
OPTIONS = [
    *("model=sasrec", "model.embedding_dim=32", "model.num_layers=1", "model.loss=in_batch"),
    *("trainer=advanced", "trainer.max_steps=20", "trainer.batch_size=4096"),
    *("trainer.max_eval_users=1000", "trainer.max_test_users=1000"),  # of 5 million, for every way alike
    *("~baselines.item_knn", "~baselines.text_knn", "logger=none", "progress=false"),
]


@dataclass(frozen=True)
class Row:
    """One command: seconds by stage, the most memory that was resident, and the metric of the test beside that of
    popularity. ``state`` is "finished", or says what ended it."""

    interactions: int
    way: str
    state: str
    data_seconds: float | None = None
    fit_seconds: float | None = None
    test_seconds: float | None = None
    wall_seconds: float | None = None
    peak_bytes: int | None = None
    recall_at_10: float | None = None
    popularity_recall_at_10: float | None = None
    disk_bytes: int | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    rows: list[Row] = []
    place = options.folder / "big_data"
    for millions in options.millions:
        for row in measured(round(millions * 1e6), place, options.memory_gib):
            rows = sorted([*rows, row], key=lambda row: row.interactions)
            sys.stdout.write(f"{line(row)}\n")
            sys.stdout.flush()
            write(rows, options.output, options.memory_gib)
    if not options.keep:
        shutil.rmtree(place)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments.big_data", description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 10, 50, 100], help="interactions")
    parser.add_argument("--memory-gib", type=float, default=6.0, help="what every command may allocate; default 6")
    parser.add_argument("--folder", type=Path, default=Path("outputs"), help="of its big_data/: data, caches, runs")
    parser.add_argument("--output", type=Path, default=HERE, help="of results, plot and page; default: this study's")
    parser.add_argument("--keep", action="store_true", help="leave data, caches and runs behind")
    return parser.parse_args(arguments)


def measured(count: int, folder: Path, memory_gib: float) -> Iterator[Row]:
    """The rows of a log of ``count`` interactions."""
    data, whole = folder / f"{count}", folder / f"{count}_whole"
    invent(data, count, max(count // USERS, 100), max(count // ITEMS, 100))
    run = Commands(folder, memory_gib)
    shutil.rmtree(run.cache(count), ignore_errors=True)  # of a study that was stopped
    yield run.row(count, FIRST, ["data=large", f"data.path={data}"])
    yield run.row(count, AGAIN, ["data=large", f"data.path={data}"])
    whole.mkdir(exist_ok=True)
    pl.scan_parquet(data / "*.parquet").sink_parquet(whole / "interactions.parquet")
    yield run.row(count, MEMORY, ["data=folder", f"data.path={whole}"])
    shutil.rmtree(whole)


@dataclass(frozen=True)
class Commands:
    """Runs of genrec below ``folder``, each a process that may allocate so much memory."""

    folder: Path
    memory_gib: float

    def row(self, count: int, way: str, words: list[str]) -> Row:
        out, cache = self.folder / "run", self.cache(count)
        shutil.rmtree(out, ignore_errors=True)
        places = [f"cache_dir={cache}", f"hydra.run.dir={out}"]
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "genrec.run", *words, *OPTIONS, *places],
            preexec_fn=self._limit,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall, peak = time.perf_counter() - begun, usage.ru_maxrss * 1024
        code = os.waitstatus_to_exitcode(status)
        if code != 0:
            return Row(count, way, _reason(said, code), wall_seconds=wall, peak_bytes=peak)
        took, final = (json.loads((out / name).read_text()) for name in ("timing.json", "metrics.json"))
        disk = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if way == FIRST else None
        return Row(
            *(count, way, "finished", took["data"], took["fit"], took["test"], wall, peak),
            final["final"]["test/recall@10"],
            final["final"]["baseline/popularity/test/recall@10"],
            disk,
        )

    def cache(self, count: int) -> Path:
        """Where the runs on a log of so many interactions put what they prepare."""
        return self.folder / f"cache_{count}"

    def _limit(self) -> None:
        size = round(self.memory_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _reason(said: str, code: int) -> str:
    if any(word in said for word in ("memory", "allocat", "Killed")):
        return "out of memory"
    return (said.strip().splitlines() or [f"ended with {code}"])[-1][:80]


def line(row: Row) -> str:
    """A row in words."""
    cost = f"{format_seconds(row.wall_seconds)}, {format_bytes(row.peak_bytes or 0)}"
    return f"{row.interactions:>12,} {row.way:<22} {row.state:<14} {cost}"


def write(rows: Sequence[Row], folder: Path, memory_gib: float) -> None:
    """The results, the picture of them, and the table of the page where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / RESULTS, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*asdict(rows[0])])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    (folder / PLOT).write_text(picture(rows, memory_gib), encoding="utf-8")
    page = folder / README
    if page.exists():
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- table: begin -->\n")
        after = rest.partition("<!-- table: end -->")[2]
        table = "\n".join(["<!-- table: begin -->", *table_lines(rows), "<!-- table: end -->"])
        page.write_text(before + table + after, encoding="utf-8")


def table_lines(rows: Sequence[Row]) -> list[str]:
    """A Markdown table."""
    head = ["interactions", "way", "data", "training", "test", "whole command", "peak memory", "on disk"]
    head += ["R@10", "popularity"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [f"{row.interactions:,}", row.way]
        cells += [_seconds(value) for value in (row.data_seconds, row.fit_seconds, row.test_seconds)]
        cells += [_seconds(row.wall_seconds) if row.state == "finished" else row.state]
        cells += [format_bytes(row.peak_bytes or 0), format_bytes(row.disk_bytes) if row.disk_bytes else ""]
        metrics = (row.recall_at_10, row.popularity_recall_at_10)
        cells += ["" if value is None else f"{value:.4f}".lstrip("0") for value in metrics]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _seconds(value: float | None) -> str:
    return "" if value is None else format_seconds(value)


def picture(rows: Sequence[Row], memory_gib: float) -> str:
    """Memory and seconds against size, a line for each way."""
    panels = [
        Panel("Peak resident memory", _lines(rows, lambda row: row.peak_bytes), format_bytes, memory_gib * 2**30),
        Panel("Reading the data", _lines(rows, lambda row: row.data_seconds), seconds),
        Panel("Whole command, 20 steps", _lines(rows, lambda row: row.wall_seconds), seconds),
    ]
    return draw(panels, title="Cost of a log by its size", x_label="interactions")


def _lines(rows: Sequence[Row], cost: Callable[[Row], float | None]) -> list[Line]:
    found = []
    for way in (FIRST, AGAIN, MEMORY):
        own = [row for row in rows if row.way == way]
        points = sorted((float(row.interactions), cost(row) or 0.0) for row in own if row.state == "finished")
        if points:
            found.append(Line(way, points, next((row.state for row in own if row.state != "finished"), "")))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
