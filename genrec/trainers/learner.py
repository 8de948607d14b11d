"""The one LightningModule: loss -> log -> optimizer and schedule. What to do with an epoch is the trainer's
business."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from genrec.contracts import Plan
from genrec.schedulers import Schedule
from genrec.trainers.checkpoints import set_rng_state
from genrec.trainers.evaluation import WeightedMean

if TYPE_CHECKING:
    from genrec.trainers.base import BaseTrainer

DEFAULT_LR, DEFAULT_WEIGHT_DECAY = 1e-3, 0.01


class EpochLoader:
    """The batches of one epoch from batch ``start`` on; of several processes each takes every ``world_size``-th batch.

    ``ahead`` cuts the next batch in a thread while the device computes; batches are pure functions of their index, so
    the order and the numbers are the same.
    """

    def __init__(self, plan: Plan, *, start: int = 0, rank: int = 0, world_size: int = 1, ahead: bool = False) -> None:
        self.plan = plan
        self.num_batches = len(plan) // world_size  # of this process, from the start of the epoch
        self.indices = range(rank, self.num_batches * world_size, world_size)[start:]
        self.ahead = ahead

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Any]:
        if not self.ahead:
            yield from (self.plan[index] for index in self.indices)
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.plan.__getitem__, self.indices[0]) if self.indices else None
            for index in self.indices[1:]:
                assert waiting is not None
                ready, waiting = waiting.result(), pool.submit(self.plan.__getitem__, index)
                yield ready
            if waiting is not None:
                yield waiting.result()


class Learner(pl.LightningModule):
    """Binds a model, a view and a trainer's policy to Lightning's loop. ``resumed`` is the state of a killed run."""

    def __init__(
        self, policy: BaseTrainer, model: nn.Module, view: Any, *, resumed: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.policy = policy
        self.model = model
        self.view = view
        self.resumed = resumed
        self.schedule: Schedule = policy.schedule
        self.means = WeightedMean()
        self.step_in_epoch = 0
        self.loader: EpochLoader | None = None
        self.latest: Tensor | None = None  # loss of the last batch
        loss: Any = model.loss
        self.loss = torch.compile(loss) if policy.hardware.compile else loss

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this name 46 times a step; torch's own way takes 20 microseconds each.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # -- an epoch begins: Lightning asks for a loader once per epoch

    def train_dataloader(self) -> EpochLoader:
        policy, resumed = self.policy, self.resumed
        self.step_in_epoch = 0
        self.means = WeightedMean()
        if resumed is not None and resumed["step_in_epoch"] == 0:
            set_rng_state(resumed["rng"])
        policy.current_epoch += 1
        policy.on_epoch_start()
        if resumed is not None and resumed["step_in_epoch"] > 0:
            self.step_in_epoch = resumed["step_in_epoch"]
            self.means.sums = {name: total.to(self.device) for name, total in resumed["sums"].items()}
            self.means.count = resumed["count"]
        plan = policy.train_plan(self.view, self.model)
        self.loader = EpochLoader(
            plan,
            start=self.step_in_epoch,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            ahead=self.device.type != "cpu",
        )
        policy.begin_epoch(self.loader.num_batches, self.step_in_epoch)
        return self.loader

    def on_train_start(self) -> None:
        if self.resumed is not None:
            optimizer = self.trainer.optimizers[0]
            optimizer.load_state_dict(self.resumed["optimizer"])
            if self.resumed["scaler"]:
                self.trainer.precision_plugin.load_state_dict(self.resumed["scaler"])
            for callback in self.policy.extra_callbacks:
                callback.load_state_dict(self.resumed["callbacks"].get(callback.state_key, {}))

    def on_train_epoch_start(self) -> None:
        self.model.train()
        if self.resumed is not None and self.resumed["step_in_epoch"] > 0:
            set_rng_state(self.resumed["rng"])  # last of all, so that nothing since the start can have drawn from it
        self.resumed = None

    # -- a step

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device, non_blocking=device.type == "cuda") if hasattr(batch, "to") else batch

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.policy.train_step(self.model, batch)
        self.means.add({"loss": losses.total, **losses.parts}, losses.count)
        self.latest = losses.total.detach()
        return losses.total

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        factor = self.schedule.factor(self.policy.global_step, self.policy.total_steps)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        optimizer.step(closure=optimizer_closure)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for a fused optimizer in mixed precision. Only a gradient scaler has to be asked.
        if gradient_clip_val is not None and getattr(self.trainer.precision_plugin, "scaler", None) is None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.step_in_epoch += 1
        step = self.trainer.global_step
        stepped = step != self.policy.global_step
        self.policy.global_step = step
        self.policy.after_batch(self, stepped=stepped)

    def on_train_epoch_end(self) -> None:
        self.policy.finish_epoch(self)

    # -- optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        build = self.policy.context.optimizer or functools.partial(
            torch.optim.AdamW, lr=DEFAULT_LR, weight_decay=DEFAULT_WEIGHT_DECAY, fused=True
        )
        optimizer = build(parameter_groups(self.model, decay_embeddings=self.policy.decay_embeddings))
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    @property
    def lr(self) -> float:
        return self.trainer.optimizers[0].param_groups[0]["lr"]


def parameter_groups(model: nn.Module, *, decay_embeddings: bool = True) -> list[dict[str, Any]]:
    """Matrices, then what no weight decay may shrink: vectors and scalars (norms, biases) and, by choice,
    embeddings."""
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding) and not decay_embeddings
    }
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kept = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    chosen = {id(p) for p in kept}
    decayed = [p for p in trainable if id(p) not in chosen]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def optimizer_steps(num_batches: int, accumulate: int) -> int:
    return math.ceil(num_batches / accumulate)
