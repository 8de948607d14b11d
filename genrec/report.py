"""Run folders in, an answer out: the table of a sweep."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from genrec.artifacts import read_json, write_text

log = logging.getLogger("genrec.report")


@dataclass(frozen=True)
class SweepRow:
    """One job of a sweep: its folder, what was changed, how it ended and its final metrics (empty when it failed)."""

    folder: Path
    overrides: dict[str, str]
    state: str
    final: dict[str, float]


def sweep_rows(folder: Path) -> list[SweepRow]:
    """The jobs of a sweep in the order they were started."""
    rows = []
    for path in sorted(Path(folder).glob("*/run.json"), key=lambda found: read_json(found)["started"]):
        job = path.parent
        state = read_json(path)["state"]
        metrics = job / "metrics.json"
        final = read_json(metrics)["final"] if state == "finished" and metrics.exists() else {}
        rows.append(SweepRow(job, _overrides(job), state, final))
    return rows


def _overrides(job: Path) -> dict[str, str]:
    if not (job / "overrides.yaml").exists():  # killed before it was written
        return {}
    listed: Any = OmegaConf.to_container(OmegaConf.load(job / "overrides.yaml"))
    return {name.lstrip("+~"): value for name, _, value in (str(entry).partition("=") for entry in listed)}


def swept_names(rows: Sequence[SweepRow]) -> list[str]:
    """The overrides that differ between the jobs, in the order given."""
    names = dict.fromkeys(name for row in rows for name in row.overrides)
    return [name for name in names if len({row.overrides.get(name) for row in rows}) > 1]


def write_sweep(rows: Sequence[SweepRow], folder: Path) -> Path:
    """``sweep.csv``: one row per job, what was swept first, then every final metric."""
    names = swept_names(rows)
    metrics = sorted({name for row in rows for name in row.final})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "state", *names, *metrics])
    for row in rows:
        cells: list[Any] = [row.overrides.get(name, "") for name in names]
        writer.writerow([row.folder.name, row.state, *cells, *(row.final.get(name, "") for name in metrics)])
    path = Path(folder) / "sweep.csv"
    write_text(path, text.getvalue())
    return path


def sweep_columns(final: Mapping[str, float], monitor: str | None) -> list[str]:
    """The metrics worth a column: what was monitored, then the test metrics."""
    chosen = [monitor] if monitor in final else []
    return [*chosen, *(name for name in final if name.startswith("test/") and name not in chosen)][:6]


class SweepTable(Callback):
    """Prints one table for all jobs when a multirun ends, the best first, and writes ``sweep.csv`` beside them."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        from genrec.tables import print_sweep

        folder = Path(config.hydra.sweep.dir)
        rows = sweep_rows(folder)
        if not rows:
            return
        from genrec.trainers.base import metric_name

        monitor = metric_name(str(config.get("monitor") or config.trainer.get("monitor")))
        mode = config.trainer.get("mode", "auto")
        path = write_sweep(rows, folder)
        best_first = sorted(rows, key=lambda row: _rank(row, monitor, mode))
        columns = sweep_columns(best_first[0].final, monitor)
        print_sweep(best_first, swept_names(rows), columns, path)


def _rank(row: SweepRow, monitor: str | None, mode: str = "auto") -> float:
    """Smaller is better; failed jobs come last."""
    from genrec.trainers.advanced import metric_mode

    value = row.final.get(monitor or "")
    if value is None:
        return float("inf")
    smaller_is_better = (metric_mode(str(monitor)) if mode == "auto" else mode) == "min"
    return value if smaller_is_better else -value
