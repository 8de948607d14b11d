"""Trains what a study plans, each an ordinary run in a folder of its own, and reads its rows.

A run that has finished is not repeated, one that was killed is continued, one that failed is begun again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.plan import DEFAULT_TABLE, PROTOCOLS, Training
from experiments.results import LABELS, Row
from genrec.artifacts import read_json, write_json
from genrec.contracts import GenrecError
from genrec.records import FAILED, FINISHED, PRUNED, is_run, read_run

ROWS_FILE = "study_rows.json"
BASELINES = ("popularity", "item_knn", "text_knn")
CODE_LENGTH = 10  # digits of a commit
_BEST = {
    "val/auc": lambda values: values.index(max(values)) + 1,
    "val/rmse": lambda values: values.index(min(values)) + 1,
}


def folder_of(training: Training, seed: int, runs: Path) -> Path:
    place = runs if training.table == DEFAULT_TABLE else runs / training.table
    return place / training.data / training.id / f"seed_{seed}"


def is_finished(folder: Path) -> bool:
    return is_run(folder) and read_run(folder).state == FINISHED


def train(
    training: Training, seed: int, folder: Path, runs_dir: Path, *, threads: int, more: Sequence[str] = ()
) -> None:
    """Trains in ``folder``, or what is left to do there; what the run says goes to a file beside it.

    Raises GenrecError, with the reason, where the run fails.
    """
    if is_finished(folder):
        return
    begun = is_run(folder) and read_run(folder).state not in (FAILED, PRUNED)
    place = f"resume={folder}" if begun else f"hydra.run.dir={folder}"
    words = [*training.words, f"seed={seed}", place, f"runs_dir={runs_dir}", "logger=none", "progress=false", *more]
    folder.parent.mkdir(parents=True, exist_ok=True)
    said = folder.parent / f"{folder.name}.log"
    with said.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [sys.executable, "-m", "genrec.run", *words],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if done.returncode != 0:
        raise GenrecError(f"{_reason(folder, said)} (all it said: {said})")


def _reason(folder: Path, said: Path) -> str:
    """Why a run failed: what its folder says, else the last line it wrote."""
    error = read_run(folder).error if is_run(folder) else None
    lines = [line.strip() for line in said.read_text(encoding="utf-8").splitlines()]
    telling = [line for line in lines if line and not line.startswith("Nothing was run.")]
    return error or (telling[-1] if telling else "it ended without a word")


def rows_of(training: Training, seed: int, folder: Path, rows: str, *, threads: int) -> list[Row]:
    """The rows of a finished run, kept in its folder, since those of recommenders take a test on all users."""
    path = folder / ROWS_FILE
    if not path.exists():
        import torch

        torch.set_num_threads(threads)
        found = {"items": _rows_of_items, "labels": _rows_of_labels}[rows](training, seed, folder)
        write_json(path, found)
    return read_json(path)


def _common(training: Training, seed: int, folder: Path) -> Row:
    environment = read_json(folder / "environment.json")
    return {
        "data": training.data,
        "model": training.name,
        "seed": seed,
        "threads": environment["host"]["threads"],
        "precision": environment["host"]["precision"],
        "data_fingerprint": environment["data_fingerprint"],
        "semantic_ids_fingerprint": environment["semantic_ids_fingerprint"] or "",
        "code": ((environment["git"] or {}).get("commit") or "")[:CODE_LENGTH],
    }


def _rows_of_items(training: Training, seed: int, folder: Path) -> list[Row]:
    """A finished run under each protocol, on all test users."""
    from genrec.pipeline import load_run
    from genrec.trainers.evaluation import beyond_accuracy, evaluate_retrieval

    run = load_run(folder)
    view = run.dataset.sequences
    metrics, timing = (read_json(folder / f"{name}.json") for name in ("metrics", "timing"))
    validated = metrics["history"].get("val/recall@10", [])
    common = {
        **_common(training, seed, folder),
        "val_recall@10": f"{max(validated):.4f}" if validated else "",
        "best_epoch": validated.index(max(validated)) + 1 if validated else "",
        "epochs": len(validated),
        "train_minutes": f"{timing['fit'] / 60:.1f}",
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
    }
    rows = []
    for masked in map(PROTOCOLS.__getitem__, training.protocols):
        beyond = beyond_accuracy(view, [10])
        found = evaluate_retrieval(run.model, view, "test", k_values=[5, 10], filter_seen=masked, beyond=beyond)
        rows.append({**common, "filter_seen": masked, **_of_items(found, "test")})
    if training.baselines:
        rows += _rows_of_baselines(training, folder)
    return rows


def _rows_of_baselines(training: Training, folder: Path) -> list[Row]:
    """The baselines under each protocol, on the data and item vectors of a finished run."""
    from genrec.contracts import RunContext
    from genrec.pipeline import evaluate_baselines, load_run, prepare

    config = load_run(folder).config
    rows = []
    for masked in map(PROTOCOLS.__getitem__, training.protocols):
        config.filter_seen = masked
        context = RunContext(output_dir=folder, seed=config.seed, progress=False)
        found = evaluate_baselines(config, prepare(config, context), [5, 10])
        for name in BASELINES:
            if f"baseline/{name}/test/recall@10" in found:
                values = _of_items(found, f"baseline/{name}/test")
                rows.append({"data": training.data, "model": name, "seed": "", "filter_seen": masked, **values})
    return rows


def _of_items(found: dict[str, float], prefix: str) -> Row:
    names = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "coverage@10")
    return {name: f"{found[f'{prefix}/{name}']:.4f}" for name in names}


def _rows_of_labels(training: Training, seed: int, folder: Path) -> list[Row]:
    """A row for each label of a finished run."""
    import torch

    metrics, timing = (read_json(folder / f"{name}.json") for name in ("metrics", "timing"))
    final, history = metrics["final"], metrics["history"]
    weights = folder / "checkpoints" / "best_model.pt"
    state = torch.load(weights, weights_only=True) if weights.exists() else {}
    best = next((chosen(history[name]) for name, chosen in _BEST.items() if name in history), "")
    common = {
        **_common(training, seed, folder),
        "table": training.table,
        "best_epoch": best,
        "train_seconds": f"{timing['fit']:.1f}" if state else "",
        "parameters": sum(tensor.numel() for tensor in state.values()),
    }
    names = {name.removeprefix("test/").rpartition("/")[0] for name in final if name.startswith("test/")}
    rows = []
    for label in sorted(names - {""}) or [""]:
        prefix = f"test/{label}/" if label else "test/"
        found = {key: f"{final[prefix + key]:.4f}" for key in LABELS.columns if prefix + key in final}
        rows.append({**common, "label": label or _only_label(folder), **found})
    return rows


def _only_label(folder: Path) -> str:
    config: Any = read_run(folder).config["data"]
    return str((config.get("tasks") or list(config["labels"]))[0])
