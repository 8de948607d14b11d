"""MTLTrainer: a CTRTrainer for several tasks, whose losses or gradients are balanced."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from genrec.balancing import Balancer, Equal, balancer
from genrec.contracts import GenrecError, Losses
from genrec.models.row_model import summed
from genrec.trainers.ctr import CTRTrainer
from genrec.trainers.learner import Learner

logger = logging.getLogger("genrec.trainers")


@dataclass(kw_only=True)
class MTLTrainer(CTRTrainer):
    """Trains all tasks of the data at once and balances them by ``balancing``.

    That is a method by name, none (the sum of the losses), uwl, gradnorm, metabalance, pcgrad or dwa, or one of
    ``genrec.balancing`` with settings of its own. The first task of the data is the target of MetaBalance. The losses
    ``train/loss/<task>``, the weights ``train/weight/<task>`` and the metrics ``val/<task>/...`` are logged; a loss or
    a metric can be ``monitor``, so a run can stop on one task (``val/auc`` is the mean of the tasks).
    """

    balancing: str | Balancer = "none"

    _name = "mtl"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.balancer = balancer(self.balancing)

    def _reset(self) -> None:
        super()._reset()
        self._started = False
        self._pending: tuple[dict[str, Tensor], Tensor | None] | None = None
        self._balancer_state: dict[str, Any] | None = None  # of a run to be continued

    @property
    def averages_gradients(self) -> bool:
        return self.balances

    @property
    def balances(self) -> bool:
        """Whether the losses are more than summed."""
        return type(self.balancer) is not Equal

    def check_model(self, model: Any) -> None:
        super().check_model(model)
        if not hasattr(model, "task_losses") or len(model.tasks) < 2:
            tasks = ", ".join(task.name for task in getattr(model, "tasks", ())) or "none"
            raise GenrecError(
                f"trainer=mtl balances the losses of several tasks, and {type(model).__name__} learns one here "
                f"({tasks}). Use trainer=ctr for it, or more tasks (data.tasks) and a model of several (model=mmoe)."
            )
        if self.balances and self.accumulate_grad_batches > 1:
            raise GenrecError(
                f"trainer.balancing={self.balancing} compares the gradients of whole steps, so it needs "
                "trainer.accumulate_grad_batches=1. Raise trainer.batch_size instead."
            )
        self._start(replace(self.balancer), model)  # which says what the method lacks in the model

    # -- a step

    def train_step(self, model: nn.Module, batch: Any) -> Losses:
        if not self.balances:
            return super().train_step(model, batch)
        losses, extra = model.task_losses(batch)  # pyright: ignore[reportCallIssue]
        self._pending = (losses, extra)
        return summed(losses, extra, len(batch))

    def backward(self, learner: Learner, loss: Tensor) -> None:
        """The balanced gradients in place of those of the sum."""
        model: Any = learner.model
        if not self.balances:
            super().backward(learner, loss)
            return
        self._start_balancing(model, loss.device)
        assert self._pending is not None
        losses, extra = self._pending
        self._pending = None
        if self.hardware.world.size > 1:
            losses = {name: value * learner.weight for name, value in losses.items()}
            extra = None if extra is None else extra * learner.weight
        self.balancer.backward(losses, *self._divided, extra=extra)

    def after_batch(self, learner: Learner, *, stepped: bool) -> None:
        if stepped and self._started:
            self.balancer.step()
            if self.global_step % self.log_every_steps == 0 and self._tracker.loggers:
                self._tracker.log_step(self._weights(), self.global_step)
        super().after_batch(learner, stepped=stepped)

    def judge_epoch(self, learner: Learner, metrics: dict[str, float]) -> bool:
        if self._started:
            self.balancer.on_epoch_end({name: metrics[f"train/loss/{name}"] for name in self.balancer.weights})
        return super().judge_epoch(learner, metrics)

    def evaluate_epoch(self, model: nn.Module, view: Any) -> dict[str, float]:
        return {**super().evaluate_epoch(model, view), **(self._weights() if self._started else {})}

    def _weights(self) -> dict[str, float]:
        return {f"train/weight/{name}": value for name, value in self.balancer.weights.items()}

    def _start_balancing(self, model: Any, device: torch.device) -> None:
        if self._started:
            return
        if self.hardware.precision == "16-mixed":
            raise GenrecError(
                f"trainer.balancing={self.balancing} takes gradients apart, which the scaling of hardware.precision="
                "16-mixed does not reach. Use bf16-mixed or 32-true."
            )
        if self.hardware.compile:
            logger.warning("hardware.compile=true is left out: trainer.balancing=%s goes through a loss several times.",
                           self.balancing)  # fmt: skip
        self._start(self.balancer, model, torch.Generator().manual_seed(self.context.seed), device)
        self._divided = _divided(model)
        self._started = True
        if self._balancer_state is not None:
            self.balancer.load_state_dict(self._balancer_state)
            self._balancer_state = None

    @staticmethod
    def _start(
        method: Balancer, model: Any, generator: torch.Generator | None = None, device: torch.device | None = None
    ) -> None:
        method.start(
            [task.name for task in model.tasks],
            kinds={task.name: task.kind for task in model.tasks},
            num_classes={task.name: 2 for task in model.tasks if task.kind == "classification"},
            last_shared=model.last_shared(),
            generator=generator,
            device=device,
        )

    # -- the state of a run

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "balancing": self.balancer.state_dict() if self._started else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._balancer_state = state["balancing"]


def _divided(model: Any) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The trainable parameters of a model that tasks share, and those of single tasks."""
    private = {id(parameter) for parameter in model.private_parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in trainable if id(p) not in private], [p for p in trainable if id(p) in private]
