"""CTRTrainer: an AdvancedTrainer for models that predict the labels of rows."""

from __future__ import annotations

import difflib
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import nn

from genrec.annotations import Count
from genrec.artifacts import atomic_path
from genrec.contracts import TEST, TRAIN, VAL, GenrecError, RunContext, Task
from genrec.directions import instead_of_ratio, is_ratio, ratio_words
from genrec.trainers.advanced import AdvancedTrainer
from genrec.trainers.base import view_of
from genrec.trainers.scoring import metric_names, predict_rows

logger = logging.getLogger("genrec.trainers")

PREDICTIONS = "predictions.parquet"


@dataclass(kw_only=True)
class CTRTrainer(AdvancedTrainer):
    """Stops when the AUC on validation rows no longer grows, and tests the best weights.

    Networks with large embeddings overfit within a few epochs (Zhang et al., CIKM 2022, arXiv 2209.06053), so
    ``patience`` is short. ``export_predictions`` writes the predictions of the test rows beside the metrics, in the
    order of the data.
    """

    monitor: str = "val/auc"
    eval_batch_size: Count = 8192
    patience: Count | None = 2
    export_predictions: bool = False

    _name = "ctr"  # of the option in messages

    def check_model(self, model: Any) -> None:
        if model.task is not Task.RANKING:
            raise GenrecError(
                f"trainer={self._name} scores predicted labels, and {type(model).__name__} predicts none. "
                "Use trainer=advanced for it, or train model=deepfm."
            )
        super().check_model(model)
        if is_ratio(self.monitor) and self.mode == "auto":
            words = ratio_words(f"trainer.monitor={self.monitor}")
            raise GenrecError(f"{words}. Use trainer.monitor={instead_of_ratio(self.monitor)}.")
        known = [name for part in (TRAIN, VAL) for name in metric_names(model.tasks, part)]
        if self.monitor not in known and not self.monitor.startswith(f"{TRAIN}/"):
            near = difflib.get_close_matches(self.monitor, known, n=1)
            raise GenrecError(
                f"trainer.monitor={self.monitor}: that is not measured of {', '.join(t.name for t in model.tasks)}."
                f"{f' Did you mean {near[0]}?' if near else ''} "
                f"Choose one of {', '.join(metric_names(model.tasks, VAL))}."
            )

    @property
    def shown_metrics(self) -> list[str]:
        return list(dict.fromkeys([self.monitor, re.sub(r"g?auc$", "log_loss", self.monitor)]))

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: nn.Module, data: Any, part: str = TEST
    ) -> dict[str, np.ndarray]:
        """(M,) predictions of every task for the rows of ``part`` ("train", "val", "test", "all"), in stored order."""
        device = self.hardware_now.prepare()
        model.to(device)
        with self.hardware_now.autocast(device):
            view, world = view_of(data, model), self.hardware_now.world
            return predict_rows(model, view, part, batch_size=self.eval_batch_size, world=world)

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Metrics of the test rows."""
        metrics = super().test(model, data, context)
        if self.export_predictions:
            path = self.write_predictions(model, data, self.context.output_dir / PREDICTIONS)
            logger.info("Predictions of the test rows: %s", path)
        return metrics

    def write_predictions(self, model: nn.Module, data: Any, path: Path, part: str = TEST) -> Path:
        """A Parquet table of the rows' labels and predictions, in stored order; returns its path."""
        view = view_of(data, model)
        labels = np.concatenate(
            [batch.labels.numpy() for batch in view.eval_batches(part, batch_size=self.eval_batch_size)]
        )
        columns = {task.name: labels[:, place] for place, task in enumerate(view.features.tasks)}
        columns.update({f"predicted_{name}": values for name, values in self.predict(model, data, part).items()})
        if self.hardware_now.world.leads:
            with atomic_path(path) as unfinished:
                pl.DataFrame(columns).write_parquet(unfinished)
        return path
