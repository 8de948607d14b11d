"""The entrypoint, a few lines of Python, and a loop over epochs give the same model and the same metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from genrec.config import compose_config
from genrec.contracts import RunContext
from genrec.data.dataset import Dataset
from genrec.data.sources.synthetic import SyntheticSource
from genrec.data.splits import LeaveOneOut
from genrec.models.sasrec import SASRec
from genrec.pipeline import execute
from genrec.trainers import AdvancedTrainer
from genrec.trainers.checkpoints import BEST, read_checkpoint

SHOP: dict[str, Any] = {"num_users": 80, "num_items": 100}


@pytest.fixture
def data() -> Dataset:
    return Dataset(SyntheticSource(**SHOP), LeaveOneOut())


def _model(data: Dataset) -> SASRec:
    torch.manual_seed(42)
    return SASRec(data.spec, embedding_dim=16)


def test_three_ways_with_equal_results(data: Dataset, tmp_path: Path) -> None:
    overrides = ["model=sasrec", "trainer=advanced", "model.embedding_dim=16", "trainer.max_epochs=3", "baselines=null"]
    overrides += [f"data.source.{name}={value}" for name, value in SHOP.items()]
    overrides += ["hardware=cpu", "logger=none", "progress=false", f"cache_dir={tmp_path / 'cache'}"]
    outcome = execute(compose_config(overrides, output_dir=str(tmp_path / "entrypoint")))

    model = _model(data)
    trainer = AdvancedTrainer(max_epochs=3)
    trainer.fit(model, data, RunContext(tmp_path / "python", progress=False))
    metrics = trainer.test(model, data)

    other = _model(data)
    steps = AdvancedTrainer(max_epochs=3)
    history = [steps.train_epoch(other, data, RunContext(tmp_path / "steps", progress=False))]
    while not steps.finished:
        history.append(steps.train_epoch())
    steps.finish()
    again = steps.test(other, data)

    weights = [read_checkpoint(tmp_path / way / "checkpoints" / BEST) for way in ("entrypoint", "python", "steps")]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]) and torch.equal(weight, weights[2][name]), name
    assert metrics == again
    measured = {name: value for name, value in outcome.final.items() if not name.startswith("ceiling/")}
    assert measured == metrics and "test/recall@10" in metrics
    assert outcome.history == trainer.metrics_history
    assert outcome.history["val/recall@10"] == [epoch["val/recall@10"] for epoch in history]
