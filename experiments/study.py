"""Trains the recipes of a study, tests each with and without masking, and tells the results as a table.

    python experiments/study.py amazon_beauty run tiger_item_beauty esasrec_beauty --seeds 1 2 3
    python experiments/study.py amazon_beauty run tiger_item_beauty --data amazon_sports
    python experiments/study.py curriculum run curriculum --as plain --override trainer=advanced
    python experiments/study.py amazon_beauty table

A study is a folder beside this file. Every training is an ordinary ``python -m genrec.run experiment=...`` in a run
folder of its own; one that has finished is not repeated, one that was killed is continued. ``results.csv`` gets a row
per training and protocol, seen items kept and masked, and ``table`` writes means and spreads over seeds into README.md.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from genrec.artifacts import read_json, write_text

HERE = Path(__file__).parent
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
COVERAGE = "coverage@10"
PROTOCOLS = {"kept": False, "masked": True}  # the items of the history in the ranking
COLUMNS = (
    "data", "model", "seed", "filter_seen", *METRICS, COVERAGE, "val_recall@10", "best_epoch", "epochs",
    "train_minutes", "parameters", "threads", "precision", "data_fingerprint", "semantic_ids_fingerprint", "code",
)  # fmt: skip
BASELINES = ("popularity", "item_knn", "text_knn")

Row = dict[str, Any]


def folder_of(model: str, data: str, seed: int, outputs: Path) -> Path:
    return outputs / data / model / f"seed_{seed}"


def train(recipe: str, data: str, seed: int, folder: Path, runs_dir: Path, overrides: Sequence[str]) -> Path:
    """The folder of the finished run; trains it, or what is left of it, where it is not there yet."""
    state = folder / "run.json"
    known = read_json(state)["state"] if state.exists() else None
    if known == "finished":
        return folder
    place = f"resume={folder}" if known is not None else f"hydra.run.dir={folder}"
    command = [f"experiment={recipe}", f"data={data}", f"seed={seed}", place, f"runs_dir={runs_dir}", *overrides]
    subprocess.run([sys.executable, "-m", "genrec.run", *command], check=True)
    return folder


def rows_of(folder: Path, model: str, data: str, seed: int, protocols: Sequence[str]) -> list[Row]:
    """A finished run under each protocol, on all test users."""
    from genrec.pipeline import load_run
    from genrec.trainers.evaluation import beyond_accuracy, evaluate_retrieval

    run = load_run(folder)
    environment, metrics, timing = (read_json(folder / f"{name}.json") for name in ("environment", "metrics", "timing"))
    validated = metrics["history"].get("val/recall@10", [])
    common = {
        "data": data,
        "model": model,
        "seed": seed,
        "val_recall@10": f"{max(validated):.4f}" if validated else "",
        "best_epoch": validated.index(max(validated)) + 1 if validated else "",
        "epochs": len(validated),
        "train_minutes": f"{timing['fit'] / 60:.1f}",
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "threads": environment["host"]["threads"],
        "precision": environment["host"]["precision"],
        "data_fingerprint": environment["data_fingerprint"],
        "semantic_ids_fingerprint": environment["semantic_ids_fingerprint"] or "",
        "code": (environment["git"].get("commit") or "")[:10],
    }
    rows = []
    view = run.dataset.sequences
    for masked in map(PROTOCOLS.__getitem__, protocols):
        beyond = beyond_accuracy(view, [10])
        found = evaluate_retrieval(run.model, view, "test", k_values=[5, 10], filter_seen=masked, beyond=beyond)
        shown = {name: f"{found[f'test/{name}']:.4f}" for name in (*METRICS, COVERAGE)}
        rows.append({**common, "filter_seen": masked, **shown})
    return rows


def baseline_rows(folder: Path, data: str, protocols: Sequence[str]) -> list[Row]:
    """The baselines under each protocol, on the data of a finished run."""
    from genrec.contracts import RunContext
    from genrec.pipeline import evaluate_baselines, load_run, prepare

    config = load_run(folder).config
    rows = []
    for masked in map(PROTOCOLS.__getitem__, protocols):
        config.filter_seen = masked
        context = RunContext(output_dir=folder, seed=config.seed, progress=False)
        found = evaluate_baselines(config, prepare(config, context), [5, 10])
        for name in BASELINES:
            values = {metric: found.get(f"baseline/{name}/test/{metric}") for metric in (*METRICS, COVERAGE)}
            if None not in values.values():
                shown = {metric: f"{value:.4f}" for metric, value in values.items()}
                rows.append({"data": data, "model": name, "seed": "", "filter_seen": masked, **shown})
    return rows


def read_results(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(
    rows: Iterable[Row],
    path: Path,
    columns: Sequence[str] = COLUMNS,
    names: Sequence[str] = ("data", "model", "filter_seen", "seed"),
) -> None:
    """Adds rows to the results; a row that is equal in ``names`` takes the place of the old one."""
    known = {key_of(row, names): row for row in read_results(path)}
    known.update({key_of(row, names): row for row in rows})
    lines = [",".join(columns)]
    for key in sorted(known):
        lines.append(",".join(str(known[key].get(column, "")) for column in columns))
    write_text(path, "\n".join(lines) + "\n")


def key_of(row: Row, names: Sequence[str] = ("data", "model", "filter_seen", "seed")) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in names)


def table(rows: Sequence[Row]) -> str:
    """Markdown: one line per data set, model and protocol, best Recall@10 first; mean and spread where seeds differ."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key_of(row)[:3], []).append(row)
    metrics = [*METRICS, *([COVERAGE] if any(row.get(COVERAGE) for row in rows) else [])]
    heads = ["data", "model", "seen items", *map(_short, metrics), "seeds", "minutes"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    order = sorted(groups, key=lambda key: (key[0], key[2], -_mean(groups[key], "recall@10")))
    for data, model, masked in order:
        group = groups[data, model, masked]
        minutes = [float(row["train_minutes"]) for row in group if row.get("train_minutes")]
        cells = [
            data,
            model,
            "masked" if masked == "True" else "kept",
            *(_cell(group, metric) for metric in metrics),
            str(len(group)) if group[0]["seed"] != "" else "",
            f"{statistics.mean(minutes):.1f}" if minutes else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _short(metric: str) -> str:
    return metric.replace("recall", "R").replace("ndcg", "N")


def _mean(rows: Sequence[Row], metric: str) -> float:
    return statistics.mean(float(row[metric]) for row in rows)


def _cell(rows: Sequence[Row], metric: str) -> str:
    values = [float(row[metric]) for row in rows if row.get(metric)]
    if not values:
        return ""
    mean = f"{statistics.mean(values):.4f}".lstrip("0")
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.4f}".replace("± 0.", "± .")


def write_table(rows: Sequence[Row], page: Path) -> None:
    """Puts the table between the markers of the page."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    write_text(page, f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


def studies() -> list[str]:
    """The names of the folders that can hold a study's results."""
    return sorted(page.parent.name for page in HERE.glob("*/README.md") if BEGIN in page.read_text(encoding="utf-8"))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=studies(), help="the folder whose results.csv and README.md are written")
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="train and test recipes")
    run.add_argument("recipes", nargs="+", help="names of conf/experiment, such as tiger_item_beauty")
    run.add_argument("--seeds", nargs="+", type=int, default=[42])
    run.add_argument("--data", default="amazon_beauty")
    run.add_argument("--outputs", type=Path, default=Path("outputs/studies"))
    run.add_argument("--as", dest="label", help="the name in the table; default: the recipe's own")
    run.add_argument(
        "--protocols", nargs="+", choices=[*PROTOCOLS], default=[*PROTOCOLS], help="which rankings to test"
    )
    run.add_argument("--override", nargs="*", default=[], help="further overrides, for example hardware.num_threads=1")
    actions.add_parser("table", help="write the table of results.csv into README.md")
    options = parser.parse_args(arguments)
    if options.action == "run" and options.label and len(options.recipes) > 1:
        parser.error(f"--as {options.label} names one recipe, and {len(options.recipes)} were given.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    results, page = (HERE / options.study / name for name in ("results.csv", "README.md"))
    if options.action == "run":
        runs_dir = options.outputs.absolute()
        for seed in options.seeds:
            for recipe in options.recipes:
                name = options.label or recipe
                folder = folder_of(name, options.data, seed, runs_dir)
                train(recipe, options.data, seed, folder, runs_dir, options.override)
                add(rows_of(folder, name, options.data, seed, options.protocols), results)
                if not any(row["data"] == options.data and row["model"] in BASELINES for row in read_results(results)):
                    add(baseline_rows(folder, options.data, options.protocols), results)
    write_table(read_results(results), page)
    sys.stdout.write(table(read_results(results)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
