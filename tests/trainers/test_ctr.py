from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from row_toys import PlantedView
from sklearn.metrics import roc_auc_score

from genrec.contracts import DataSpec, GenrecError, RunContext
from genrec.data.ragged import Ragged
from genrec.models.deepfm import DeepFM
from genrec.models.logistic_regression import LogisticRegression
from genrec.models.popularity import Popularity
from genrec.trainers import CTRTrainer, create_trainer
from genrec.trainers.checkpoints import BEST, read_checkpoint


def model_of(view: PlantedView, kind: Any = DeepFM, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"embedding_dim": 4, "hidden_dims": [16], **options} if kind is DeepFM else options
    return kind(DataSpec(features=view.features), **options)


def context(folder: Path) -> RunContext:
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.02)  # noqa: E731
    return RunContext(folder, seed=3, optimizer=optimizer, progress=False)


def test_the_best_weights_by_auc_are_tested(tmp_path):
    view, trainer = PlantedView(), CTRTrainer(max_epochs=12, batch_size=128)
    model = model_of(view)
    result = trainer.fit(model, view, context(tmp_path))
    history = result.history["val/auc"]
    assert result.best_value == max(history) == history[result.best_epoch - 1]
    assert result.stopped_early == (len(history) < 12)
    tested = trainer.test(model, view)
    labels = view.parts["test"].labels[:, 0].numpy()
    predicted = trainer.predict(model, view)["click"]
    assert tested["test/auc"] == pytest.approx(roc_auc_score(labels, predicted))
    assert tested["test/auc"] > 0.8 and tested["test/log_loss"] < 0.6
    saved = read_checkpoint(tmp_path / "checkpoints" / BEST)
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())


def test_a_network_sees_the_interaction_that_a_sum_of_effects_cannot(tmp_path):
    view, areas = PlantedView(), {}
    for name, kind in (("sum", LogisticRegression), ("network", DeepFM)):
        trainer, model = CTRTrainer(max_epochs=12, batch_size=128, patience=4), model_of(view, kind)
        trainer.fit(model, view, context(tmp_path / name))
        areas[name] = trainer.test(model, view)["test/auc"]
    assert areas["network"] > areas["sum"] + 0.05


def test_predictions_of_the_test_rows_are_written_beside_their_labels(tmp_path):
    view, trainer = PlantedView(), create_trainer("ctr", max_epochs=1, export_predictions=True)
    model = model_of(view)
    trainer.fit(model, view, context(tmp_path))
    trainer.test(model, view)
    predicted: Any = trainer.predict(model, view)
    table = pl.read_parquet(tmp_path / "predictions.parquet")
    assert table.columns == ["click", "predicted_click"] and table.height == 512
    assert np.array_equal(table["click"].to_numpy(), view.parts["test"].labels[:, 0].numpy())
    assert np.array_equal(table["predicted_click"].to_numpy(), predicted["click"])


@pytest.mark.parametrize("mode", [True, False])
def test_predicting_leaves_the_mode_alone(mode, tmp_path):
    """Fault of an original: what came after an inference ran in another mode."""
    view, trainer = PlantedView(), CTRTrainer()
    trainer.context = context(tmp_path)
    model = model_of(view, dropout=0.5).train(mode)
    first, second = trainer.predict(model, view), trainer.predict(model, view)
    assert model.training is mode and np.array_equal(first["click"], second["click"])


def test_losses_and_errors_are_minimised():
    """Fault of an original: early stopping took a larger error for a better one."""
    directions = {name: CTRTrainer(monitor=name).direction for name in (
        "val/auc", "val/gauc", "val/r2", "val/log_loss", "val/ece", "val/brier", "val/normalised_entropy",
        "val/spend/rmse", "val/spend/mae", "val/mse", "val/loss", "val/click/auc",
    )}  # fmt: skip
    assert [name for name, direction in directions.items() if direction == "max"] == [
        "val/auc", "val/gauc", "val/r2", "val/click/auc",
    ]  # fmt: skip


def test_models_without_predictions_are_refused(tmp_path):
    model = Popularity(DataSpec(2, 3, train=Ragged.from_rows([[0, 1], [2]])))
    with pytest.raises(GenrecError, match=r"trainer=ctr scores predicted labels, and Popularity.*trainer=advanced"):
        CTRTrainer().fit(model, PlantedView(), context(tmp_path))


def test_a_sample_of_users_is_refused_where_rows_are_tested(tmp_path, caplog):
    view, run = PlantedView(), CTRTrainer(max_test_users=5)
    with pytest.raises(GenrecError, match=r"max_test_users=5 is a sample of users, and DeepFM is tested on rows, all"):
        run.fit(model_of(view), view, context(tmp_path))
    caplog.set_level("INFO", "genrec.trainers")
    run.test(model_of(view), view, context(tmp_path))
    assert "fixed sample" not in caplog.text


def test_a_metric_that_is_not_measured_is_told_before_training(tmp_path):
    view = PlantedView(("rating",))
    with pytest.raises(GenrecError, match=r"monitor=val/auc: that is not measured of rating.*val/rmse"):
        CTRTrainer().fit(model_of(view), view, context(tmp_path))
    with pytest.raises(GenrecError, match=r"Did you mean val/log_loss\?"):
        CTRTrainer(monitor="val/logloss").check_model(model_of(PlantedView()))
    with pytest.raises(GenrecError, match=r"monitor=val/calibration is best at 1.*Use trainer.monitor=val/ece"):
        CTRTrainer(monitor="val/calibration").check_model(model_of(PlantedView()))
    CTRTrainer(monitor="val/calibration", mode="min").check_model(model_of(PlantedView()))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("metric", ["auc", "gauc"])
def test_the_log_loss_is_shown_beside_an_auc(metric):
    assert CTRTrainer(monitor=f"val/{metric}").shown_metrics == [f"val/{metric}", "val/log_loss"]


def test_other_trainers_know_rows_too(tmp_path):
    view = PlantedView()
    simple, model = create_trainer("simple", max_epochs=2), model_of(view)
    simple.fit(model, view, context(tmp_path / "simple"))
    assert {"test/auc", "test/log_loss", "train/loss"} <= simple.test(model, view).keys()
    with pytest.raises(GenrecError, match=r"Use trainer=ctr, or trainer.monitor=val/loss"):
        create_trainer("advanced").fit(model, view, context(tmp_path / "advanced"))
    advanced = create_trainer("advanced", max_epochs=2, monitor="val/auc")
    assert len(advanced.fit(model, view, context(tmp_path / "advanced")).history["val/auc"]) == 2
    with pytest.raises(GenrecError, match=r"recommends nothing.*trainer=ctr"):
        advanced.predict(model, view)
