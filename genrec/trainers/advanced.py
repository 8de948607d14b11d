"""AdvancedTrainer: validation, early stopping, a plateau schedule, and the best weights for the one test."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Lt
from torch import nn

from genrec.annotations import Count, Natural, NotNegative
from genrec.contracts import VAL, FitResult, GenrecError, RunContext
from genrec.directions import metric_mode
from genrec.schedulers import Plateau, Schedule
from genrec.trainers import checkpoints as files
from genrec.trainers.base import BaseTrainer, trainable, view_of
from genrec.trainers.learner import DEFAULT_LR, Learner

logger = logging.getLogger("genrec.trainers")


@dataclass(kw_only=True)
class AdvancedTrainer(BaseTrainer):
    """Validates every ``eval_every_epochs``, keeps the best weights by ``monitor``, and stops after ``patience``
    validations without an improvement of more than ``min_delta`` (None: never). ``mode`` is "min", "max" or "auto":
    losses and errors are minimised. It also stops once the metric has reached ``stopping_threshold``, is worse than
    ``divergence_threshold``, or is not finite. ``save_top_k`` > 1 keeps ``checkpoint_epoch_*.pt`` of the k best
    epochs; the best is always in ``best_model.pt``.

    ``use_scheduler`` multiplies the learning rate by ``lr_factor`` after ``lr_patience`` validations without
    improvement, down to ``min_lr``; a schedule given in the context takes its place. The best weights are in the model
    when ``fit`` returns, whether training was stopped early or not.
    """

    max_epochs: Count = 20
    max_eval_users: Count | None = 5000
    monitor: str = "val/recall@10"
    mode: Literal["auto", "min", "max"] = "auto"
    save_top_k: Natural = 1
    eval_every_epochs: Count = 1
    patience: Count | None = 5
    min_delta: NotNegative = 0.0
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    use_scheduler: bool = True
    lr_factor: Annotated[float, Gt(0), Lt(1)] = 0.5
    lr_patience: Natural = 1
    min_lr: NotNegative = 1e-4

    validates: ClassVar[bool] = True

    def _reset(self) -> None:
        super()._reset()
        self.best_value: float | None = None
        self.best_epoch = 0
        self.best_metrics: dict[str, float] = {}
        self.bad_epochs = 0  # validations since the last improvement
        self._top: list[tuple[float, int]] = []  # (value, epoch) of the kept epochs, best first

    @property
    def direction(self) -> str:
        """ "min" or "max": what is better for the monitored metric."""
        return metric_mode(self.monitor) if self.mode == "auto" else self.mode

    # -- schedule

    def _schedule_of_run(self) -> Schedule:
        if self.context.scheduler is not None or not self.use_scheduler:
            return super()._schedule_of_run()
        return Plateau(lr_factor=self.lr_factor, lr_patience=self.lr_patience, min_lr_ratio=self._min_lr_ratio())

    def _min_lr_ratio(self) -> float:
        lr = getattr(self.context.optimizer, "keywords", {}).get("lr", DEFAULT_LR)
        return min(self.min_lr / lr, 1.0)

    # -- epochs

    def evaluate_epoch(self, model: nn.Module, view: Any) -> dict[str, float]:
        due = self.current_epoch % self.eval_every_epochs == 0
        last = self.stopped or self.current_epoch == self.max_epochs or self.global_step == self.max_steps
        return self.evaluate(model, view, VAL, progress=self.context.progress) if due or last else {}

    def judge_epoch(self, learner: Learner, metrics: dict[str, float]) -> bool:
        logger.info("Current learning rate: %.6f", learner.lr)
        evaluated = {name: value for name, value in metrics.items() if name.startswith(f"{VAL}/")}
        if not evaluated and not self.monitor.startswith("train/"):
            return False
        if self.monitor not in metrics:
            why = " The validation rows may all be of one class." if self.monitor.endswith("auc") else ""
            raise GenrecError(
                f"trainer.monitor={self.monitor!r} is not among what is measured.{why} "
                f"Choose one of {', '.join(sorted(metrics))}."
            )
        value = metrics[self.monitor]
        if not math.isfinite(value):
            logger.warning("%s is %s: training stops here.", self.monitor, value)
            return True
        self._keep_top(learner.model, value)
        if self._improved(value):
            self.best_value, self.best_epoch, self.bad_epochs = value, self.current_epoch, 0
            self.best_metrics = metrics
            self._checkpoints.save_weights(files.BEST, learner.model)
            logger.info("New best model! %s: %.4f", readable(self.monitor), value)
        else:
            self.bad_epochs += 1
        self.schedule.on_metric(value, self.direction)
        if self._beyond_threshold(value):
            return True
        if self.patience is not None and self.bad_epochs >= self.patience:
            logger.info(
                "Early stopping: no better %s for %d validations; the best was %.4f in epoch %d.",
                self.monitor, self.bad_epochs, self.best_value, self.best_epoch,
            )  # fmt: skip
            return True
        return False

    def _beyond_threshold(self, value: float) -> bool:
        """Whether a value is as good as was wanted, or so bad that training goes astray."""
        sign = 1.0 if self.direction == "max" else -1.0
        good, bad = self.stopping_threshold, self.divergence_threshold
        if good is not None and sign * value >= sign * good:
            logger.info("%s is %.4f and has reached %g: training stops here.", readable(self.monitor), value, good)
            return True
        if bad is not None and sign * value < sign * bad:
            logger.warning("%s is %.4f, worse than %g: training stops here.", readable(self.monitor), value, bad)
            return True
        return False

    def _improved(self, value: float) -> bool:
        if self.best_value is None:
            return True
        gain = value - self.best_value if self.direction == "max" else self.best_value - value
        return gain > self.min_delta

    @property
    def shown_metrics(self) -> list[str]:
        """The validation metrics in the line of an epoch."""
        return list(dict.fromkeys([self.monitor, self.monitor.replace("recall@", "ndcg@")]))

    def epoch_line(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> str:
        values = {name: eval_metrics[name] for name in self.shown_metrics if name in eval_metrics}
        if not values and f"{VAL}/loss" in eval_metrics:
            values = {f"{VAL}/loss": eval_metrics[f"{VAL}/loss"]}
        parts = [f"{name.replace('/', '_')}: {value:.4f}" for name, value in values.items()]
        loss = train_metrics.get("train/loss", math.nan)  # an epoch may have taught nothing
        line = f"Epoch {self.current_epoch}/{self.max_epochs} - train_loss: {loss:.4f}"
        return ", ".join([line, *parts])

    # -- files

    @property
    def has_weights_to_test(self) -> bool:
        return self.best_epoch > 0

    def _keep_top(self, model: nn.Module, value: float) -> None:
        """Keeps the weights of the ``save_top_k`` best epochs; of equal ones the earlier."""
        if self.save_top_k < 2:  # the best one is best_model.pt
            return
        sign = -1.0 if self.direction == "max" else 1.0
        ranked = sorted([*self._top, (value, self.current_epoch)], key=lambda entry: (sign * entry[0], entry[1]))
        kept, dropped = ranked[: self.save_top_k], ranked[self.save_top_k :]
        if (value, self.current_epoch) in kept:
            self._checkpoints.save_weights(self._checkpoints.epoch_name(self.current_epoch), model)
        every = self.checkpoint_every_epochs
        for _, epoch in dropped:
            if not (every and epoch % every == 0):
                self._checkpoints.remove(self._checkpoints.epoch_name(epoch))
        self._top = kept

    def choose_weights(self, model: nn.Module) -> None:
        if self.best_epoch == 0:
            logger.warning("No epoch was validated, so the last weights are tested.")
            super().choose_weights(model)
            return
        self._checkpoints.load_weights(files.BEST, model)
        self._final.update(self.best_metrics)
        logger.info(
            "Restored the best weights: epoch %d, %s: %.4f", self.best_epoch, readable(self.monitor), self.best_value
        )

    def test(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Test metrics, and validation metrics on as many users where fitting had looked at fewer or at none."""
        metrics = super().test(model, data, context)
        users = getattr(view_of(data, model), "num_users", 0)
        if not trainable(model) or (self.max_eval_users is not None and users > self.max_eval_users):
            metrics.update(self.validate(model, data, context))
        return metrics

    def validate(self, model: nn.Module, data: Any, context: RunContext | None = None) -> dict[str, float]:
        """Metrics on the validation part, on as many users as the test: all, or a sample of ``max_test_users``."""
        sample, self.max_eval_users = self.max_eval_users, self.max_test_users
        try:
            return super().validate(model, data, context)
        finally:
            self.max_eval_users = sample

    def result(self) -> FitResult:
        return replace(super().result(), best_epoch=self.best_epoch, best_value=self.best_value)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "best_value": self.best_value,
            "best_epoch": self.best_epoch,
            "best_metrics": self.best_metrics,
            "bad_epochs": self.bad_epochs,
            "top": [list(entry) for entry in self._top],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.best_value, self.best_epoch = state["best_value"], state["best_epoch"]
        self.best_metrics, self.bad_epochs = state["best_metrics"], state["bad_epochs"]
        self._top = [(value, int(epoch)) for value, epoch in state["top"]]


def readable(metric: str) -> str:
    """``val/recall@10`` as ``Val Recall@10``; abbreviations in capitals."""
    words = re.split(r"[/_ ]", metric)
    short = re.compile(r"^(ndcg|mrr|map|mse|rmse|auc)(@\d+)?$")
    return " ".join(word.upper() if short.match(word) else word[:1].upper() + word[1:] for word in words)
