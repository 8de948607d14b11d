"""The tables of a sweep on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genrec.artifacts import write_json
from genrec.records import RunRecord, read_run
from genrec.report.seed_groups import SeedGroup
from genrec.sweeps.table import runs_table, seeds_table
from genrec.tables import to_text


def run(folder: Path, final: dict[str, float], state: str = "finished", **overrides: Any) -> RunRecord:
    write_json(folder / "run.json", {"state": state, "started": 0.0})
    write_json(folder / "metrics.json", {"final": final, "history": {}})
    write_json(folder / "resources.json", {"parameters": 1234567})
    (folder / "overrides.yaml").write_text("".join(f"- {name}={value}\n" for name, value in overrides.items()))
    return read_run(folder)


def lines(table: Any) -> list[list[str]]:
    return [line.split() for line in to_text(table, width=150).splitlines()]


def test_runs_keep_the_order_given_and_the_failed_say_so(tmp_path: Path) -> None:
    metrics = {"val/recall@10": 0.5, "test/recall@10": 0.4}
    runs = [
        run(tmp_path / "1", metrics, **{"optimizer.lr": "0.001"}),
        run(tmp_path / "0", {}, "failed", **{"optimizer.lr": "0.1"}),
        run(tmp_path / "2", {"val/recall@10": 0.2}, "pruned", **{"optimizer.lr": "0.2"}),
    ]
    columns = ["val/recall@10", "resources/parameters", "test/recall@10"]
    rows = lines(runs_table(runs, ["optimizer.lr"], columns))
    assert rows[1] == ["run", "lr", *columns]
    assert rows[3:] == [["1", "0.001", "0.5000", "1,234,567", "0.4000"], ["0", "0.1", "failed"], ["2", "0.2", "pruned"]]


def test_seeds_have_mean_spread_and_interval() -> None:
    group = SeedGroup(
        {"model": "[gat]"}, (1, 2), (), {"val/x": (0.1, 0.3)},
        mean={"val/x": 0.2}, std={"val/x": 0.1}, low={"val/x": -0.5}, high={"val/x": 0.9},
    )  # fmt: skip
    rows = lines(seeds_table([group], ["val/x", "val/y"]))
    assert rows[1] == ["model", "seeds", "val/x", "val/y"]
    assert rows[3:] == [["[gat]", "2", "0.2000", "±", "0.1000", "-"], ["[-0.5000,", "0.9000]"]]
