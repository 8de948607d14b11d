"""Run folders with what the test saw of each user or row, as finished runs leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from genrec.artifacts import write_json
from tests.report.run_folders import make_run

SPLIT = {"_target_": "genrec.data.splits.LeaveOneOut"}


def make_user_run(
    folder: Path,
    recall: np.ndarray,
    *,
    model: str = "tiger",
    seed: int = 42,
    fingerprint: str = "d1",
    users: list[Any] | None = None,
    baselines: Mapping[str, np.ndarray] | None = None,
    config: Mapping[str, Any] | None = None,
    seconds: float | None = None,
    **facts: Any,
) -> Path:
    """A retrieval run whose users have these ``recall@10``; ``ndcg@10`` is half of it."""
    given = {"model": {"_target_": f"genrec.models.{model}.X"}, "data": {"path": "x"}, "split": SPLIT, "seed": seed,
             "filter_seen": False, "k_values": [10], "runs_dir": str(folder.parent),
             "baselines": {name: {"_target_": f"genrec.models.{name}.Y"} for name in baselines or {}},
             **(config or {})}  # fmt: skip
    make_run(folder, model=model, config=given, **facts)
    write_json(folder / "environment.json", {"data_fingerprint": fingerprint, "git": {"commit": "c" * 40}})
    write_json(folder / "resources.json", {"parameters": 1000, "peak_resident_bytes": 5e8})
    if seconds is not None:
        write_json(folder / "timing.json", {"fit": seconds, "total": seconds + 1})
    count = np.arange(len(recall))
    columns = {"user_id": users or count.tolist(), "history_length": count % 7 + 2, "num_targets": count * 0 + 1,
               "target_popularity": (count * 37 % 101).astype(float), **_metrics(recall)}  # fmt: skip
    for name, values in (baselines or {}).items():
        columns |= {f"baseline/{name}/{metric}": column for metric, column in _metrics(values).items()}
    pl.DataFrame(columns).write_parquet(folder / "test_users.parquet")
    return folder


def make_row_run(
    folder: Path,
    labels: Mapping[str, np.ndarray],
    predictions: Mapping[str, np.ndarray],
    *,
    groups: np.ndarray | None = None,
    baselines: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    model: str = "deepfm",
    fingerprint: str = "d1",
    **facts: Any,
) -> Path:
    """A ranking run with these labels and predictions by task."""
    config = {"model": {"_target_": f"genrec.models.{model}.X"}, "split": SPLIT, "seed": 42, "filter_seen": False,
              "baselines": {name: {} for name in baselines or {}}}  # fmt: skip
    make_run(folder, model=model, config=config, monitor="val/auc", **facts)
    write_json(folder / "environment.json", {"data_fingerprint": fingerprint})
    columns = {f"label/{task}": values.astype(np.float32) for task, values in labels.items()}
    if groups is not None:
        columns["group"] = groups
    columns |= {f"prediction/{task}": values.astype(np.float32) for task, values in predictions.items()}
    for name, found in (baselines or {}).items():
        columns |= {f"baseline/{name}/prediction/{task}": values.astype(np.float32) for task, values in found.items()}
    pl.DataFrame(columns).write_parquet(folder / "test_rows.parquet")
    return folder


def hits(count: int, rate: float, seed: int) -> np.ndarray:
    """A share ``rate`` of ones among zeros."""
    return (np.random.default_rng(seed).random(count) < rate).astype(float)


def _metrics(recall: np.ndarray) -> dict[str, np.ndarray]:
    return {"recall@10": recall.astype(np.float32), "ndcg@10": (recall / 2).astype(np.float32)}
