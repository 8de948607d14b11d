"""Run folders with everything that a page can show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.artifacts import write_json
from genrec.semantic_ids import SemanticIds
from tests.report.run_folders import make_run

WHO = ("", "baseline/item_knn/", "baseline/popularity/")
CONFIG = {
    "model": {"_target_": "genrec.models.tiger.Tiger", "embedding_dim": 64},
    "optimizer": {"lr": 0.001, "betas": [0.9, 0.999]},
    "split": {"_target_": "genrec.data.splits.LeaveOneOut"},
    "logger": {"wandb": {"api_key": "sk-very-secret-123", "project": "genrec"}},
    "filter_seen": False,
    "seed": 7,
}
EVIL = "<script>document.title = 'taken'</script>"


def make_retrieval_run(folder: Path, *, num_users: int = 400, **facts: Any) -> Path:
    """A finished TIGER run: curves, users, samples (one title is a script), semantic IDs, time and memory."""
    final = {f"{who}{part}/{metric}@{k}": value * k / 10 for who, value in zip(WHO, (0.3, 0.4, 0.05), strict=True)
             for part in ("val", "test") for metric in ("recall", "ndcg", "hit", "mrr") for k in (5, 10)}  # fmt: skip
    final |= {"ceiling/test/recall@10": 0.6, "test/coverage@10": 0.5, "test/gini@10": 0.75}
    epochs = [{"epoch": epoch, "step": 10 * epoch, "seconds": 2.0, "train/lr": 1e-3, "train/loss": 8.0 / epoch,
               "val/loss": 9.0 / epoch, "val/recall@5": 0.02 * epoch, "val/recall@10": 0.3 - 0.01 * (epoch - 7) ** 2,
               "val/ndcg@10": 0.01 * epoch} for epoch in range(1, 11)]  # fmt: skip
    known: dict[str, Any] = {
        "final": final,
        "epochs": epochs,
        "config": CONFIG,
        "overrides": ["model=tiger", "optimizer.lr=1e-3"],
    }
    make_run(folder, **{**known, **facts})
    write_json(folder / "environment.json", {
        "command": ["/x/genrec/run.py", "model=tiger", "optimizer.lr=1e-3", "logger.wandb.api_key=sk-very-secret-123"],
        "versions": {"torch": "2.13.0"}, "git": {"commit": "abcdef0123456789", "changed_files": 3},
        "host": {"device": "cpu", "threads": 1}, "data_fingerprint": "f1f2f3"})  # fmt: skip
    write_json(folder / "timing.json", {"data": 0.5, "fit": 83.0, "test": 1.5, "total": 85.0})
    write_json(folder / "resources.json", {"parameters": 289_856, "peak_resident_bytes": 801_000_000,
                                            "stages": {"data": {"seconds": 0.5, "peak_resident_bytes": 301_000_000},
                                                       "fit": {"seconds": 83.0, "peak_resident_bytes": 801_000_000}},
                                            "stage_peaks": "own"})  # fmt: skip
    write_json(folder / "tokenizer_report.json", {"unique_share": 0.785, "num_colliding_items": 204.0})
    codes = np.array([[item // 16, item // 4 % 4, item % 4] for item in range(64)])
    SemanticIds(codes, (4, 4, 8), 2).save(folder / "semantic_ids.npz")
    write_json(folder / "samples.json", [_sample(user) for user in range(3)])
    _users(num_users).write_parquet(folder / "test_users.parquet")
    return folder


def _users(count: int) -> pl.DataFrame:
    place = np.arange(count)
    columns: dict[str, Any] = {"user_id": place, "history_length": place % 20 + 2, "num_targets": place * 0 + 1,
                               "target_popularity": (place * 37 % 101).astype(float)}  # fmt: skip
    for number, who in enumerate(WHO):
        hits = (place % (number + 2) == 0).astype(np.float32)
        columns |= {f"{who}recall@10": hits, f"{who}ndcg@10": hits / 2}
    return pl.DataFrame(columns)


def _sample(user: int) -> dict[str, Any]:
    def named(item: int) -> dict[str, Any]:
        return {"item_id": item, "title": EVIL if item == 3 else f"Title {item}"}

    recommended = [{**named(item), "score": -0.5 * item, "hit": user == 1 and item == 4} for item in range(2, 7)]
    known = "9f86d081884c7d65" * 4 if user == 2 else user  # some data sets have hashes
    return {"user_id": known, "history": [named(1), named(3)], "targets": [named(4)], "recommended": recommended}


def make_ranking_run(folder: Path, *, num_rows: int = 3000, tasks: tuple[str, ...] = ("click", "buy")) -> Path:
    """A finished run of rows with calibrated predictions, beside a baseline that always says the same."""
    random = np.random.default_rng(3)
    columns: dict[str, Any] = {}
    for number, task in enumerate(tasks):
        probability = random.beta(1.5, 3.0 + 2 * number, num_rows)
        columns[f"label/{task}"] = (random.random(num_rows) < probability).astype(np.float32)
        columns[f"prediction/{task}"] = probability.astype(np.float32)
        columns[f"baseline/base_rate/prediction/{task}"] = np.full(num_rows, 0.3, dtype=np.float32)
    final = {f"{who}test/{task}/{metric}": value for who in ("", "baseline/base_rate/") for task in tasks
             for metric, value in (("auc", 0.8), ("log_loss", 0.4))}  # fmt: skip
    epochs = [{"epoch": epoch, "train/loss": 1 / epoch, "val/click/auc": 0.7 + 0.01 * epoch} for epoch in (1, 2, 3)]
    make_run(folder, model="mmoe", data="synthetic_clicks", monitor="val/click/auc", final=final, epochs=epochs)
    pl.DataFrame(columns).write_parquet(folder / "test_rows.parquet")
    return folder
