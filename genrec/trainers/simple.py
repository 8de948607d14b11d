"""SimpleTrainer: a fixed number of epochs on all training data, no validation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn

from genrec.annotations import Count
from genrec.contracts import TRAIN
from genrec.trainers.base import BaseTrainer

logger = logging.getLogger("genrec.trainers")

_SAMPLE = 1000  # users whose training items are asked for after each epoch


@dataclass(kw_only=True)
class SimpleTrainer(BaseTrainer):
    """Trains for ``max_epochs`` and tests the last weights.

    The recall it reports on the way is on *training* items (``train/recall@k``): it shows that something is memorised,
    not how well the model recommends. The test metrics at the end are honest.
    """

    train_recall_k: Count = 10

    def evaluate_epoch(self, model: nn.Module, view: Any) -> dict[str, float]:
        if not hasattr(model, "recommend") or not hasattr(view, "train"):
            return {}
        from genrec.trainers.evaluation import evaluate_retrieval

        return evaluate_retrieval(
            model,
            view,
            TRAIN,
            k_values=[self.train_recall_k],
            batch_size=self.eval_batch_size,
            max_users=min(self.max_eval_users or _SAMPLE, _SAMPLE),
            seed=self.context.seed,
            progress=False,
            give_way=self.give_way,
        )

    def epoch_line(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> str:
        line = super().epoch_line(train_metrics, eval_metrics)
        k = self.train_recall_k
        recall = eval_metrics.get(f"train/recall@{k}")
        return line if recall is None else f"{line}, Recall@{k}: {recall:.4f}"

    def _finish(self, model: nn.Module) -> None:
        super()._finish(model)
        name = f"train/recall@{self.train_recall_k}"
        if name in self.metrics_history:
            self._final[name] = self.metrics_history[name][-1]
            logger.warning(
                "%s: %.4f is measured on training items: it shows memorisation, not quality. See the test metrics.",
                name, self._final[name],
            )  # fmt: skip
