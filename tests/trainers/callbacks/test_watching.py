"""Callbacks that look and change nothing: memory, profile, codebooks, sample predictions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainer_toys import toy_context, toy_model, toy_view

from genrec.contracts import DataSpec, GenrecError
from genrec.data.views import ItemsView
from genrec.models.rqvae import RQVAE
from genrec.trainers import AdvancedTrainer, RQVAETrainer
from genrec.trainers.callbacks.codebook_usage import CodebookUsage
from genrec.trainers.callbacks.memory_use import MemoryUse, resident_memory
from genrec.trainers.callbacks.profiler import ProfilerWindow
from genrec.trainers.callbacks.sample_predictions import SamplePredictions

HeldMemory = Callable[[int], AbstractContextManager[None]]


class Noted:
    """A logger that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.texts: list[tuple[str, str, int]] = []
        self.name, self.version, self.experiment, self.save_dir = "noted", 0, self, None

    def add_text(self, name: str, text: str, step: int) -> None:
        self.texts.append((name, text, step))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, dict(metrics)))

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _fit(folder: Path, *callbacks: Any, loggers: Any = (), **options: Any) -> torch.Tensor:
    model = toy_model()
    trainer = AdvancedTrainer(**{"max_epochs": 2, "batch_size": 64, **options})
    trainer.fit(model, toy_view(), toy_context(folder, callbacks=list(callbacks), loggers=list(loggers)))
    return model.items.weight.detach()


def test_memory_is_logged_after_each_epoch(tmp_path: Path) -> None:
    noted = Noted()
    _fit(tmp_path, MemoryUse(), loggers=[noted])
    found = [metrics for _, metrics in noted.rows if "memory/resident_mb" in metrics]
    assert len(found) == 2
    assert all(0 < metrics["memory/resident_mb"] <= metrics["memory/peak_mb"] * 1.001 for metrics in found)


def test_resident_memory_is_that_of_the_process(held_memory: HeldMemory) -> None:
    before = resident_memory()["memory/resident_mb"]
    with held_memory(50):
        assert resident_memory()["memory/resident_mb"] - before == pytest.approx(50, abs=15)
    assert resident_memory()["memory/resident_mb"] - before == pytest.approx(0, abs=15)


def test_the_profile_covers_the_window_and_changes_nothing(tmp_path: Path) -> None:
    plain = _fit(tmp_path / "plain")
    assert torch.equal(plain, _fit(tmp_path / "a", ProfilerWindow(skip_batches=2, num_batches=3)))
    folder = tmp_path / "a/profile"
    assert "aten::" in (folder / "operators.txt").read_text()
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert sum(event.get("name", "").startswith("Optimizer.step#") for event in events) == 3


def test_a_window_that_training_does_not_fill_is_written_all_the_same(tmp_path: Path) -> None:
    _fit(tmp_path, ProfilerWindow(skip_batches=1, num_batches=1000), max_epochs=1)
    assert (tmp_path / "profile/operators.txt").exists()


def test_every_run_has_its_profile_once(tmp_path: Path) -> None:
    window = ProfilerWindow(skip_batches=0, num_batches=1)
    for name in ("a", "b"):
        _fit(tmp_path / name, window, max_epochs=1)
        assert (tmp_path / name / "profile/operators.txt").exists()
    trainer = AdvancedTrainer(max_epochs=2, batch_size=64, k_values=[10])
    trainer.train_epoch(toy_model(), toy_view(), toy_context(tmp_path / "c", callbacks=[window]))
    (tmp_path / "c/profile/operators.txt").unlink()
    trainer.train_epoch()
    assert not (tmp_path / "c/profile/operators.txt").exists()


def test_codebooks_are_watched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    vectors = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    spec, noted = DataSpec(num_users=1, num_items=60, item_vectors=vectors), Noted()
    model = RQVAE(spec, hidden_dims=[16], latent_dim=4, num_quantizers=2, num_embeddings=64)
    context = toy_context(tmp_path, callbacks=[CodebookUsage(warn_below=1.0)], loggers=[noted])
    with caplog.at_level(logging.WARNING, "genrec"):
        RQVAETrainer(max_epochs=2, batch_size=32, eval_every_epochs=2).fit(model, ItemsView(vectors), context)
    found = [metrics for _, metrics in noted.rows if "codebook/usage_rate" in metrics]
    assert len(found) == 2
    with torch.no_grad():
        codes = model.eval().encode(torch.from_numpy(vectors))
    used = np.mean([len(codes[:, level].unique()) / 64 for level in range(2)])
    assert found[-1]["codebook/usage_rate"] == pytest.approx(used) and 0 < used < 1
    assert "of the codes are in use after epoch 2" in caplog.text
    with pytest.raises(GenrecError, match="codebook_usage watches models that code items, and ToyModel codes none"):
        _fit(tmp_path / "toy", CodebookUsage())


def test_sample_predictions_show_the_same_users_as_the_model_learns(tmp_path: Path) -> None:
    noted = Noted()
    plain = _fit(tmp_path / "plain")
    assert torch.equal(plain, _fit(tmp_path / "a", SamplePredictions(num_users=3, k=2), loggers=[noted]))
    texts = [(tmp_path / f"a/samples/epoch_{epoch:04d}.txt").read_text() for epoch in (1, 2)]
    view = toy_view()
    hidden = {f"item {row[0]}" for row in view.val}
    for text in texts:
        assert text.count(" > ") == 2 * 3  # three items of the history of each of three users
        assert any(name in text for name in hidden)
    assert [name for name, _, _ in noted.texts] == ["samples", "samples"]
    assert texts[0].splitlines()[0] == "Recommendations after epoch 1"


@pytest.mark.parametrize(
    ("kind", "options"),
    [(ProfilerWindow, {"num_batches": 0}), (CodebookUsage, {"warn_below": 2.0}), (CodebookUsage, {"every_epochs": 0}),
     (SamplePredictions, {"k": 0})],
)  # fmt: skip
def test_wrong_options_are_refused(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(GenrecError, match=r"=0|=2"):
        kind(**options)
