"""Trains ranking and multi-task models on tables and tells the test metrics as a page.

    python -m experiments.ranking run --data frappe --models logistic_regression deepfm --seeds 1 2 3
    python -m experiments.ranking run --table multitask --data adult --models mmoe --as mmoe_gradnorm \
        --override trainer=mtl 'data.tasks=[income,never_married]' trainer.balancing=gradnorm
    python -m experiments.ranking table

Every training is an ordinary run of ``genrec.run`` in a folder of its own; one that has finished is not repeated.
``results.csv`` gets a row per training and label, and ``table`` writes means and spreads over seeds into README.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import study
from experiments.study import Row, read_results
from genrec.artifacts import read_json, write_text

HERE = Path(__file__).parent
TABLES = ("ranking", "multitask")
METRICS = ("auc", "log_loss", "calibration", "gauc", "rmse")
SHOWN = ("auc", "log_loss", "calibration")
COLUMNS = (
    "table", "data", "label", "model", "seed", *METRICS, "best_epoch", "train_seconds", "parameters", "threads",
    "data_fingerprint", "code",
)  # fmt: skip


def folder_of(outputs: Path, table: str, data: str, model: str, seed: int) -> Path:
    return outputs / table / data / model / f"seed_{seed}"


def train(model: str, data: str, seed: int, folder: Path, overrides: Sequence[str]) -> Path:
    """The folder of the finished run, which is trained where it is not there yet."""
    from genrec.config import compose_config
    from genrec.pipeline import execute

    state = folder / "run.json"
    if state.exists() and read_json(state)["state"] == "finished":
        return folder
    usual = ["trainer=ctr", "baselines=null", "logger=none", "progress=false"]
    chosen = [f"model={model}", f"data={data}", f"seed={seed}", *usual, *overrides]
    config = compose_config([*chosen, f"runs_dir={folder.parents[3]}"], output_dir=folder)
    execute(config)
    return folder


def rows_of(folder: Path, table: str, data: str, model: str, seed: int) -> list[Row]:
    """A row for each label of a finished run."""
    import torch

    environment, metrics, timing = (read_json(folder / f"{name}.json") for name in ("environment", "metrics", "timing"))
    final, history = metrics["final"], metrics["history"]
    weights = folder / "checkpoints" / "best_model.pt"
    state = torch.load(weights, weights_only=True) if weights.exists() else {}
    monitored = next((history[name] for name in ("val/auc", "val/rmse") if name in history), [])
    common = {
        **{"table": table, "data": data, "model": model, "seed": seed},
        "best_epoch": monitored.index(max(monitored)) + 1 if monitored else "",
        "train_seconds": f"{timing['fit']:.1f}" if state else "",
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "threads": environment["host"]["threads"],
        "data_fingerprint": environment["data_fingerprint"],
        "code": (environment["git"].get("commit") or "")[:10],
    }
    names = {name.removeprefix("test/").rpartition("/")[0] for name in final if name.startswith("test/")}
    labels = sorted(names - {""}) or [""]
    rows = []
    for label in labels:
        prefix = f"test/{label}/" if label else "test/"
        found = {key: f"{final[prefix + key]:.4f}" for key in METRICS if prefix + key in final}
        rows.append({**common, "label": label or _only_label(folder), **found})
    return rows


def _only_label(folder: Path) -> str:
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=True)
    return str((config["data"].get("tasks") or list(config["data"]["labels"]))[0])


def add(rows: Iterable[Row], path: Path) -> None:
    """Adds rows to the results; a row of the same table, data, label, model and seed takes the place of the old one."""
    study.add(rows, path, COLUMNS, ("table", "data", "label", "model", "seed"))


def table(rows: Sequence[Row], name: str) -> str:
    """Markdown: one line per data set, label and model, best AUC first; mean and spread where seeds differ."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row["table"] == name:
            groups.setdefault((row["data"], row["label"], row["model"]), []).append(row)
    heads = ["data", "label", "model", "AUC", "log-loss", "calibration", "seeds", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for data, label, model in sorted(groups, key=lambda key: (key[0], key[1], -_mean(groups[key], "auc"), key[2])):
        group = groups[data, label, model]
        seconds = [float(row["train_seconds"]) for row in group if row["train_seconds"]]
        cells = [data, label, model, *(_cell(group, metric) for metric in SHOWN), str(len(group))]
        cells.append(f"{statistics.mean(seconds):.0f}" if seconds else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: Sequence[Row], metric: str) -> float:
    values = [float(row[metric]) for row in rows if row[metric]]
    return statistics.mean(values) if values else 0.0


def _cell(rows: Sequence[Row], metric: str) -> str:
    values = [float(row[metric]) for row in rows if row[metric]]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}"


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """The page with each table between its markers."""
    for name in TABLES:
        before, rest = page.split(f"<!-- {name}: begin -->")
        _, after = rest.split(f"<!-- {name}: end -->")
        page = f"{before}<!-- {name}: begin -->\n{table(rows, name)}\n<!-- {name}: end -->{after}"
    return page


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train and test models")
    run.add_argument("--data", nargs="+", required=True, help="names of conf/data, such as frappe")
    run.add_argument("--models", nargs="+", required=True, help="names of conf/model, such as deepfm")
    run.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    run.add_argument("--table", choices=TABLES, default=TABLES[0], help="the table the results belong to")
    run.add_argument("--as", dest="label", help="the name in the table; default: the model's own")
    run.add_argument("--outputs", type=Path, default=Path("outputs/studies"))
    run.add_argument("--override", nargs="*", default=[], help="further overrides, for example hardware.num_threads=1")
    actions.add_parser("table", help="write the tables of results.csv into README.md")
    options = parser.parse_args(arguments)
    if options.action == "run" and options.label and len(options.models) > 1:
        parser.error(f"--as {options.label} names one model, and {len(options.models)} were given.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    results, page = HERE / "results.csv", HERE / "README.md"
    if options.action == "run":
        outputs = options.outputs.absolute()
        for data in options.data:
            for model in options.models:
                for seed in options.seeds:
                    name = options.label or model
                    folder = folder_of(outputs, options.table, data, name, seed)
                    train(model, data, seed, folder, options.override)
                    add(rows_of(folder, options.table, data, name, seed), results)
    rows = read_results(results)
    write_text(page, with_tables(page.read_text(encoding="utf-8"), rows))
    sys.stdout.write("\n\n".join(table(rows, name) for name in TABLES) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
