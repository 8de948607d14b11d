"""OnlineTrainer: trains through time, each slice of it judged before it is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt, Lt
from torch import nn

from genrec.annotations import Count
from genrec.contracts import VAL, GenrecError, Plan
from genrec.data.sequences import PlansInTurn, SequencePlan, SequencesView
from genrec.schedulers import Schedule
from genrec.trainers.base import BaseTrainer
from genrec.trainers.learner import optimizer_steps


@dataclass(kw_only=True)
class OnlineTrainer(BaseTrainer):
    """Epoch by epoch the model goes on through time: it learns the interactions of a slice, and is then judged on those
    of the next, which it has not seen.

    The first slice holds the earliest ``first_share`` of the training interactions and is passed through
    ``first_passes`` times; the others share the rest equally and are passed through once. ``val/...`` of an epoch are
    the metrics on the next slice, of the last epoch on the validation part. What the split holds out is never learned.
    """

    max_epochs: Count = 6  # slices
    monitor: str = "val/recall@10"
    first_share: Annotated[float, Gt(0), Lt(1)] = 0.5
    first_passes: Count = 5

    validates: ClassVar[bool] = True

    def _reset(self) -> None:
        super()._reset()
        self._steps: list[int] = []  # of optimizers, by slice

    def check_model(self, model: Any) -> None:
        if getattr(model, "training_mode", None) not in ("positions", "windows"):
            name = type(model).__name__
            raise GenrecError(
                f"trainer=online learns next items in their order, which {name} does not. Use model=tiger."
            )
        super().check_model(model)
        log = getattr(self._data, "log", None)
        if self._data is not None and (log is None or log.timestamps is None):
            raise GenrecError("trainer=online needs data with timestamps, given as a data set and not as a view.")

    def check_schedule(self, schedule: Schedule | None) -> None:
        if schedule is not None and schedule.follows_metric:
            raise GenrecError(
                "A plateau schedule waits until a metric no longer improves, and trainer=online measures another slice "
                "after each epoch. Use another schedule (scheduler=constant or cosine)."
            )
        super().check_schedule(schedule)

    def known_until(self, view: SequencesView, epoch: int) -> np.ndarray:
        """(U,) how many training items of each user lie in the first ``epoch`` slices."""
        if epoch < 1:
            return np.zeros(view.num_users, dtype=np.int64)
        log = self._data.log
        begins = np.searchsorted(log.users, np.arange(log.num_users))
        rank = np.arange(len(log)) - begins[log.users]
        trained = rank < view.train.lengths[log.users]
        shares = np.linspace(self.first_share, 1.0, self.max_epochs)
        end = np.quantile(log.timestamps[trained], shares[min(epoch, self.max_epochs) - 1])
        return np.bincount(log.users[trained & (log.timestamps <= end)], minlength=log.num_users)

    def train_plan(self, view: SequencesView, model: Any) -> Plan:
        return self._plan_of_slice(view, model, self.current_epoch)

    def planned_steps(self, view: SequencesView, model: Any, epochs: int) -> int:
        for epoch in range(len(self._steps) + 1, epochs + 1):
            self._steps.append(
                optimizer_steps(len(self._plan_of_slice(view, model, epoch)), self.accumulate_grad_batches)
            )
        return sum(self._steps[:epochs])

    def _plan_of_slice(self, view: SequencesView, model: Any, epoch: int) -> Plan:
        known, new = self.known_until(view, epoch - 1), self.known_until(view, epoch)
        part = view.cut(new, new)
        rows = part.training_rows(model).scoring_from(part.train.offsets[:-1] + known)
        # Every pass of every slice is shuffled anew.
        epochs = [epoch + 1000 * n for n in range(self.first_passes if epoch == 1 else 1)]
        options = {"batch_size": self.batch_size_for(model), "seed": self.context.seed}
        return PlansInTurn([SequencePlan(part.train, rows, epoch=number, **options) for number in epochs])

    def evaluate_epoch(self, model: nn.Module, view: SequencesView) -> dict[str, float]:
        if self.current_epoch < self.max_epochs:
            known, later = (self.known_until(view, epoch) for epoch in (self.current_epoch, self.current_epoch + 1))
            view = view.cut(known, later)
        return self.evaluate(model, view, VAL, progress=self.context.progress)

    def epoch_line(self, train_metrics: dict[str, float], eval_metrics: dict[str, float]) -> str:
        name, value = self.monitor.removeprefix(f"{VAL}/"), eval_metrics.get(self.monitor, float("nan"))
        return f"{super().epoch_line(train_metrics, eval_metrics)}, next slice {name}: {value:.4f}"

    def choose_weights(self, model: nn.Module) -> None:
        super().choose_weights(model)
        self._final.update({name: value for name, value in self._latest.items() if name.startswith(f"{VAL}/")})

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "latest": self._latest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._latest = state.get("latest", {})
